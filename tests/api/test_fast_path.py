"""The fast path and FastAPI's own way are one: over real sockets they answer the same bytes alike, errors included."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.api.http1.connection import Connection as ServerConnection
from app.api.http1.connection import Exchange
from app.api.http1.head import Head
from app.contract.preprocessing import Image
from app.engines.engine import Engine
from app.engines.registry import EngineName
from app.settings import Settings
from tests.api.sockets import FORM, TIMEOUT_S, Answer, Connection, LongWay, Server, form, request
from tests.conftest import Load


class Watched(ServerConnection):
    """Counts the requests that take the fast path."""

    taken = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        fast_path = self.services.fast_path

        def watched(connection: ServerConnection, head: Head) -> Exchange | None:
            exchange = fast_path(connection, head)
            Watched.taken += exchange is not None
            return exchange

        self.services = replace(self.services, fast_path=watched)


class Gated:
    """An engine that remembers its batches, and can be held at a gate."""

    name: EngineName = "openvino"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sizes: list[int] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def predict(self, batch: Image) -> NDArray[np.float32]:
        self.entered.release()
        assert self.gate.wait(TIMEOUT_S)
        self.sizes.append(len(batch))
        return self.engine.predict(batch)

    def prepare(self, batch_size: int) -> None:
        self.engine.prepare(batch_size)

    def close(self) -> None:
        self.engine.close()


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@dataclass(frozen=True)
class BothWays:
    fast: Server
    long: Server

    def send(self, data: bytes, *, fast: bool = True) -> Answer:
        """Send the bytes both ways, and return the answer, which is one; `fast` says which way it must have taken."""
        before = Watched.taken
        with self.fast.open() as by_fast, self.long.open() as by_long:
            answers = by_fast.send(data).answer(), by_long.send(data).answer()
        assert answers[0].lasting == answers[1].lasting
        assert Watched.taken - before == fast
        assert self.fast.catalogue.admission.pending == 0
        return answers[0]


@pytest.fixture(scope="module")
def both_ways(trained_store: Path, load: Load) -> Iterator[BothWays]:
    settings = Settings(
        model_store=trained_store, engine="openvino", workers=1, max_upload_bytes=30_000, max_pixels=1_000_000
    )
    with (
        Server(settings, load(settings), Watched) as fast,
        Server(settings, load(settings), LongWay) as long,
    ):
        yield BothWays(fast, long)


@dataclass(frozen=True)
class Held:
    server: Server
    engine: Gated

    def ask(self, data: bytes) -> Connection:
        """Send a request, and return when its batch runs, held at the gate."""
        connection = self.server.open().send(data)
        assert self.engine.entered.acquire(timeout=TIMEOUT_S)
        return connection


Hold = Callable[..., Held]


@pytest.fixture
def hold(trained_store: Path, load: Load) -> Iterator[Hold]:
    """Start a service whose engine is held at its gate, with settings of a test's own."""
    with ExitStack() as stack:

        def start(**given: Any) -> Held:
            settings = Settings(
                **{
                    "model_store": trained_store,
                    "engine": "openvino",
                    "inference_place": "thread",
                    "workers": 1,
                    **given,
                }
            )
            loaded = load(settings)
            (model,) = loaded.models
            engine = Gated(model.loaded.engine)
            stack.callback(engine.gate.set)
            gated = replace(loaded, models=(replace(model, loaded=replace(model.loaded, engine=engine)),))
            server = stack.enter_context(Server(settings, gated, Watched))
            stack.callback(engine.gate.set)
            return Held(server, engine)

        yield start


# The same answers


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?top_k=3",
        "?model=digits",
        "?model=digits&",
        "?model=digits&top_k=2",
        "?top_k=999999999",
        "?min_probability=0.999999",
        "?model=digits&top_k=2&min_probability=0.5",
    ],
)
def test_a_good_request(both_ways: BothWays, seven: bytes, query: str) -> None:
    raw = both_ways.send(request(seven, query=query))
    assert raw.status == 200
    assert both_ways.send(request(form(seven), query=query, content_type=FORM)).body == raw.body


@pytest.fixture(scope="module")
def both_ways_of_mnist(repository: Path, load: Load) -> Iterator[BothWays]:
    settings = Settings(model_store=repository / "model_store", engine="openvino", workers=1)
    with (
        Server(settings, load(settings), Watched) as fast,
        Server(settings, load(settings), LongWay) as long,
    ):
        yield BothWays(fast, long)


@pytest.mark.parametrize(
    "query",
    [
        "?details=familiarity",
        "?details=neighbours&details=familiarity",
        "?false_alarms=0.05",
        "?set=0.1",
        "?model=mnist&top_k=2&min_probability=0.5&false_alarms=0.5&details=familiarity&set=0.01&set_method=aps",
    ],
)
def test_what_is_asked_of_trust(both_ways_of_mnist: BothWays, seven: bytes, query: str) -> None:
    answer = both_ways_of_mnist.send(request(seven, query=query))
    assert answer.status == 200
    assert json.loads(answer.body)["label"] == "7"


@pytest.mark.parametrize(
    ("query", "content_type", "body", "status"),
    [
        ("", "image/png", b"junk", 415),
        ("", "image/png", b"\x89PNG\r\n\x1a\n", 422),
        ("", "image/png", b"x" * 30_001, 413),
        ("", "text/plain", b"junk", 415),
        ("", "", b"junk", 415),
        ("", None, b"junk", 415),
        ("", "multipart/form-data", b"junk", 400),
        ("", FORM, b"junk", 400),
        ("", FORM, form(b"junk"), 415),
        ("", FORM, form(b""), 422),
        ("", FORM, form(b"junk", field="picture"), 400),
        ("", "MULTIPART/Form-Data; boundary=xyz", form(b"junk"), 415),
        ("", "multipart/form-data; boundary=\xe9", b"junk", 400),
        ("?model=cats", "image/png", b"junk", 404),
        ("?model=cats&top_k=2", "image/png", b"junk", 404),
        ("", "image/png", b"", 422),
        ("?details=familiarity", "image/png", b"junk", 400),
        ("?set=0.5", "image/png", b"junk", 400),
    ],
)
def test_a_bad_request(both_ways: BothWays, query: str, content_type: str | None, body: bytes, status: int) -> None:
    assert both_ways.send(request(body, query=query, content_type=content_type)).status == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?top_k=2&model=digits", 200),
        ("?model=", 404),
        ("?model=%C3%A9", 404),
        ("?top_k=0", 400),
        ("?top_k=x", 400),
        ("?top_k=1&top_k=2", 200),
        ("?something=else", 200),
        ("?top_k=99999999999999999999", 200),
        ("?false_alarms=0.51", 400),
        ("?false_alarms=0.0", 400),
        ("?set=0.00", 400),
        ("?details=age", 400),
        ("?set_method=other", 400),
    ],
)
def test_an_unusual_query_takes_the_long_way(both_ways: BothWays, seven: bytes, query: str, status: int) -> None:
    assert both_ways.send(request(seven, query=query), fast=False).status == status


V1, V2 = "/v1/models/digits", "/v2/models/digits"


def infer_body(
    *pictures: bytes, path: str = f"{V2}/infer", length: str | None = None, more: tuple[str, ...] = (), **message: Any
) -> bytes:
    """A binary BYTES request of the Open Inference Protocol; `length` replaces the header's right value."""
    data = b"".join(len(picture).to_bytes(4, "little") + picture for picture in pictures)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(pictures)]}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}], **message}).encode()
    header = f"Inference-Header-Content-Length: {len(text) if length is None else length}"
    return request(text + data, header, *more, path=path, content_type=None)


def predict_body(*pictures: bytes, path: str = f"{V1}:predict", key: str = "instances") -> bytes:
    """A request of TensorFlow Serving's interface."""
    values = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
    return request(json.dumps({key: values}).encode(), path=path, content_type=None)


def test_the_other_protocols(both_ways: BothWays, seven: bytes) -> None:
    for sent in (
        infer_body(seven),
        infer_body(*[seven] * 20, id="a", parameters={"binary_data_output": True}),
        infer_body(seven, path=f"{V2}/versions/1/infer"),
        infer_body(seven, outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]),
        request(seven, "Inference-Header-Content-Length: 0", path=f"{V2}/infer", content_type=None),
        predict_body(seven, seven),
        predict_body(seven, key="inputs", path=f"{V1}/versions/1:predict"),
        predict_body(seven, key="instances", path=f"{V1}:predict"),
        request(
            json.dumps({"examples": [{"image": {"b64": base64.b64encode(seven).decode()}}]}).encode(),
            path=f"{V1}:classify",
            content_type="application/json",
        ),
        request(form(seven, field="files"), path="/predict/batch", content_type=FORM),
        request(form(b"junk", field="files"), path="/predict/batch", query="?top_k=2", content_type=FORM),
    ):
        assert both_ways.send(sent).status == 200


def test_bad_requests_of_the_other_protocols(both_ways: BothWays, seven: bytes) -> None:
    for sent, status in (
        (infer_body(b"junk"), 415),
        (infer_body(), 400),
        (infer_body(seven, b"junk"), 415),
        (infer_body(seven, length="x"), 400),
        (infer_body(seven, length="999999"), 400),
        (infer_body(seven, path="/v2/models/cats/infer"), 404),
        (infer_body(seven, path=f"{V2}/versions/9/infer"), 404),
        (infer_body(seven, more=("X-Request-Timeout: soon",)), 400),
        (infer_body(b"x" * 30_001), 413),
        (predict_body(seven, key="pictures"), 400),
        (predict_body(path=f"{V1}:predict"), 400),
        (predict_body(seven, path="/v1/models/cats:predict"), 404),
        (predict_body(seven, path=f"{V1}/versions/9:classify"), 404),
        (request(b"", path=f"{V1}:predict", content_type=None), 400),
        (request(seven, path="/predict/batch"), 415),
        (request(b"junk", path="/predict/batch", content_type=FORM), 400),
        (request(form(seven), path="/predict/batch", content_type=FORM), 400),
        (request(form(seven, field="files"), path="/predict/batch", query="?model=cats", content_type=FORM), 404),
    ):
        assert both_ways.send(sent).status == status, sent[:200]


def test_paths_and_queries_that_take_the_long_way(both_ways: BothWays, seven: bytes) -> None:
    for sent, status in (
        (infer_body(seven, path="/v2/models/d%69gits/infer"), 200),
        (infer_body(seven, path=f"{V2}/infer?a=b"), 200),
        (infer_body(seven, path=f"{V2}/versions/1/infer/"), 404),
        (predict_body(seven, path=f"{V1}:predict?a=b"), 200),
        (predict_body(seven, path=f"{V1}:regress"), 400),
        (predict_body(seven, path=f"{V1}/labels/a:predict"), 404),
        (infer_body(seven, path=f"/v2/models/{'d' * 300}%20/infer"), 404),
        (infer_body(seven, more=("Content-Encoding: br",)), 415),
    ):
        assert both_ways.send(sent, fast=False).status == status, sent[:200]


def test_a_picture_with_too_many_pixels(both_ways: BothWays) -> None:
    large = cv2.imencode(".png", np.zeros((1001, 1000), np.uint8))[1].tobytes()
    assert both_ways.send(request(large)).status == 413


def test_a_picture_that_is_decoded_in_a_thread(both_ways: BothWays) -> None:
    large = cv2.imencode(".png", np.zeros((1000, 1000), np.uint8))[1].tobytes()
    pixels = both_ways.fast.catalogue.get().tuning.inline_decode_pixels
    assert pixels < 1_000_000
    assert both_ways.send(request(large)).status == 200
    assert both_ways.send(request(large[:-100])).status == 422


def test_a_defect_of_the_service_is_500_without_a_word_about_its_inside(
    both_ways: BothWays, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: bytes) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("app.serving.classifier.read_header", broken)
    answer = both_ways.send(request(b"junk"))
    assert answer.status == 500
    assert b"internal_error" in answer.body
    assert b"secret" not in answer.body


@pytest.mark.parametrize("name", ["content-type", "CONTENT-TYPE", "cOnTeNt-TyPe"])
def test_header_names_are_of_any_case(both_ways: BothWays, seven: bytes, name: str) -> None:
    assert both_ways.send(request(seven, f"{name}: image/png", content_type=None)).status == 200


@pytest.mark.parametrize("types", [("image/png", "text/plain"), ("text/plain", "image/png")])
def test_of_two_content_types_both_ways_take_the_same(
    both_ways: BothWays, seven: bytes, types: tuple[str, str]
) -> None:
    both_ways.send(request(seven, *(f"Content-Type: {value}" for value in types), content_type=None))


@pytest.mark.parametrize(("given", "kept"), [("mine", True), ("a b", True), ("x" * 200, False), ("\xe9", False)])
def test_the_request_id_of_an_error_is_the_callers_where_it_is_sensible(
    both_ways: BothWays, given: str, kept: bool
) -> None:
    data = request(b"junk").replace(b"same-for-both", given.encode("latin-1"))
    for server in (both_ways.fast, both_ways.long):
        found = dict(server.ask(data).headers)["x-request-id"]
        assert found
        assert (found == given) == kept


# The ways of HTTP


def test_connection_close_is_said_and_done(both_ways: BothWays, seven: bytes) -> None:
    data = request(seven, "Connection: close")
    assert ("connection", "close") in both_ways.send(data).headers
    bad = request(b"junk", "Connection: close")
    assert ("connection", "close") in both_ways.send(bad).headers
    for each in (data, bad):
        with both_ways.fast.open() as connection:
            connection.send(each).answer()
            assert connection.is_closed()


def test_http_1_0_takes_the_long_way(both_ways: BothWays, seven: bytes) -> None:
    data = request(seven).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert ("connection", "close") in both_ways.send(data, fast=False).headers


def test_a_chunked_body_takes_the_long_way(both_ways: BothWays, seven: bytes) -> None:
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(seven), seven)
    answer = both_ways.send(request(chunked, "Transfer-Encoding: chunked"), fast=False)
    assert answer.body == both_ways.send(request(seven)).body


def test_expect_100_continue_is_told_to_go_on(both_ways: BothWays, seven: bytes) -> None:
    with both_ways.fast.open() as connection:
        data = request(seven, "Expect: 100-continue")
        assert connection.send(data.removesuffix(seven)).answer().status == 100
        assert connection.send(seven).answer().status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_take_the_long_way(both_ways: BothWays, method: str) -> None:
    assert both_ways.send(request(method=method), fast=False).status == 405


def test_a_body_that_is_compressed_takes_the_long_way(both_ways: BothWays, seven: bytes) -> None:
    both_ways.send(request(seven, "Content-Encoding: gzip"), fast=False)


def test_many_requests_share_a_connection(both_ways: BothWays, seven: bytes) -> None:
    with both_ways.fast.open() as connection:
        statuses = [connection.send(request(body)).answer().status for body in (seven, b"junk", seven, seven[:60])]
        assert statuses == [200, 415, 200, 422]
        assert connection.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").answer().status == 200
        assert connection.send(request(seven)).answer().status == 200


def test_a_request_may_arrive_in_any_number_of_segments(both_ways: BothWays, seven: bytes) -> None:
    whole, before = both_ways.send(request(seven)), Watched.taken
    data = request(seven)
    with both_ways.fast.open() as connection:
        for index in range(len(data)):
            connection.send(data[index : index + 1])
        assert connection.answer().lasting == whole.lasting
    assert Watched.taken == before + 1


def test_pipelined_requests_are_answered_in_order(both_ways: BothWays, seven: bytes) -> None:
    live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    queries = [f"?top_k={count}" for count in (1, 2, 3)]
    expected = [both_ways.send(request(seven, query=query)).body for query in queries]
    first, second, third = (request(seven, query=query) for query in queries)
    with both_ways.fast.open() as connection:
        connection.send(first + second + live + third)
        bodies = [connection.answer().body for _ in range(4)]
    assert bodies == [*expected[:2], b'{"status":"live"}', expected[2]]


def test_pipelined_errors_carry_their_own_request_ids(both_ways: BothWays, seven: bytes) -> None:
    bodies = {"one": b"junk", "two": seven[:60], "three": b"junk", "four": seven[:60]}
    data = [request(body).replace(b"same-for-both", name.encode()) for name, body in bodies.items()]
    with both_ways.fast.open() as connection:
        connection.send(b"".join(data))
        answers = [connection.answer() for _ in data]
    assert [answer.status for answer in answers] == [415, 422, 415, 422]
    assert [dict(answer.headers)["x-request-id"] for answer in answers] == list(bodies)


def test_a_request_behind_a_pipelined_error_is_not_cut_off_by_the_idle_timeout(hold: Hold, seven: bytes) -> None:
    held = hold(keep_alive_s=1)
    with held.server.open() as connection, held.server.open() as idle:
        idle.send(request(b"junk")).answer()
        assert connection.send(request(b"junk") + request(seven)).answer().status == 415
        assert idle.is_closed()
        held.engine.gate.set()
        assert connection.answer().status == 200


# Lies


@pytest.mark.parametrize(
    "lengths",
    [
        ("-1",),
        ("ten",),
        ("1e3",),
        ("0x10",),
        ("+5",),
        ("",),
        ("99999999999999999999999999",),
        ("5", "6"),
        ("5", "5"),
        ("5, 5",),
    ],
)
def test_a_content_length_that_is_no_length_is_400_and_the_end(both_ways: BothWays, lengths: tuple[str, ...]) -> None:
    data = request(b"junk!", *(f"Content-Length: {length}" for length in lengths))
    assert both_ways.send(data, fast=False).status == 400
    with both_ways.fast.open() as connection:
        connection.send(data).answer()
        assert connection.is_closed()


def test_a_length_beside_chunks_is_400(both_ways: BothWays) -> None:
    data = request(b"5\r\njunk!\r\n0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked")
    assert both_ways.send(data, fast=False).status == 400


def test_a_body_longer_than_its_length_ends_the_connection(both_ways: BothWays, seven: bytes) -> None:
    data = request(seven, f"Content-Length: {len(seven) - 10}")
    for server in (both_ways.fast, both_ways.long):
        with server.open() as connection:
            assert connection.send(data).answer().status in {400, 422}
    both_ways.fast.turn()
    assert both_ways.fast.catalogue.admission.pending == 0
    assert both_ways.fast.waiting == 0


def test_a_body_shorter_than_its_length_holds_no_place(both_ways: BothWays, seven: bytes) -> None:
    with both_ways.fast.open() as connection:
        connection.send(request(seven, f"Content-Length: {len(seven) + 10}"))
        both_ways.fast.turn()
        assert both_ways.fast.catalogue.admission.pending == 0
    both_ways.fast.turn()
    assert both_ways.send(request(seven)).status == 200


# Under load


def test_a_client_that_hangs_up_gives_its_place_back_and_is_never_run(hold: Hold, seven: bytes) -> None:
    held = hold()
    first = held.ask(request(seven))
    with held.server.open() as second:
        second.send(request(seven))
        held.server.turn()
        assert (held.server.catalogue.admission.pending, held.server.waiting) == (2, 1)
        second.reset()
    held.server.turn()
    assert (held.server.catalogue.admission.pending, held.server.waiting) == (1, 0)
    held.engine.gate.set()
    with first:
        assert first.answer().status == 200
    assert held.server.catalogue.admission.pending == 0
    assert held.engine.sizes == [1]


def test_a_client_that_hangs_up_while_its_batch_runs_gives_its_place_back_once(hold: Hold, seven: bytes) -> None:
    held = hold()
    held.ask(request(seven)).reset()
    held.server.turn()
    assert held.server.catalogue.admission.pending == 0
    held.engine.gate.set()
    assert held.server.ask(request(seven)).status == 200
    assert held.server.catalogue.admission.pending == 0


def test_a_client_that_ends_its_side_is_answered_when_calm_and_dropped_in_overload(hold: Hold, seven: bytes) -> None:
    held = hold(max_pending=4, log_level="warning")
    first = held.ask(request(seven))
    with held.server.open() as calm, held.server.open() as busy:
        calm.send(request(seven)).end()
        held.server.turn()
        assert (held.server.catalogue.admission.pending, held.server.waiting) == (2, 1)
        busy.send(request(seven))
        held.server.turn()
        held.server.catalogue.admission.overloaded = True
        busy.end()
        assert busy.is_closed()
        assert (held.server.catalogue.admission.pending, held.server.waiting) == (2, 1)
        held.engine.gate.set()
        assert calm.answer().status == 200
        assert calm.is_closed()
    with first:
        assert first.answer().status == 200


def assert_nothing_is_held_at_the_end(held: Held) -> None:
    held.server.stop()
    held.server.join()
    assert (held.server.catalogue.admission.pending, held.server.waiting) == (0, 0)


@pytest.mark.parametrize("place", ["thread", "loop"])
def test_a_pipelining_client_that_hangs_up_does_not_disturb_its_batch(hold: Hold, seven: bytes, place: str) -> None:
    held = hold(inference_place=place)
    if place == "loop":
        held.engine.gate.set()
    first = held.ask(request(seven))
    with held.server.open() as rude, held.server.open() as polite:
        polite.send(request(seven))
        rude.send(request(seven) * 3)
        held.server.turn()
        rude.__exit__()
        held.server.turn()
        held.engine.gate.set()
        assert polite.answer().status == 200
    with first:
        assert first.answer().status == 200
    assert_nothing_is_held_at_the_end(held)


@pytest.mark.parametrize("place", ["thread", "loop"])
def test_a_pipelining_client_that_ends_in_garbage_does_not_disturb_its_batch(
    hold: Hold, seven: bytes, place: str
) -> None:
    held = hold(inference_place=place, request_timeout_s=5)
    first = held.ask(request(seven))
    with held.server.open() as rude, held.server.open() as polite:
        rude.send(request(seven) * 2 + b"\0\r\n\r\n")
        if place == "thread":  # a loop that is held at the gate turns later
            held.server.turn()
        polite.send(request(seven))
        held.engine.gate.set()
        assert polite.answer().status == 200
    with first:
        assert first.answer().status == 200
    assert_nothing_is_held_at_the_end(held)


def test_one_more_than_the_service_may_hold_is_told_to_come_back(hold: Hold, seven: bytes) -> None:
    held = hold(max_pending=1)
    first = held.ask(request(seven))
    refused = held.server.ask(request(seven))
    assert refused.status == 503
    assert b'"code":"overloaded"' in refused.body
    assert dict(refused.headers)["retry-after"] == "1"
    held.engine.gate.set()
    with first:
        assert first.answer().status == 200
    assert held.server.ask(request(seven)).status == 200


SHED = b"POST /predict%b HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n%b\r\n%b"


def shed(seven: bytes, *, query: bytes = b"", more: bytes = b"") -> bytes:
    """A request that can be refused unparsed: it brings no id of its own."""
    return SHED % (query, len(seven), more, seven)


_OF_ONE_REQUEST = {"date", "x-request-id", "content-length", "server-timing"}


def lasting_without_id(answer: Answer) -> tuple[int, list[tuple[str, str]], dict[str, str]]:
    body = json.loads(answer.body)
    assert body.pop("request_id") == dict(answer.headers)["x-request-id"]
    return answer.status, [header for header in answer.headers if header[0] not in _OF_ONE_REQUEST], body


def test_what_is_refused_unparsed_is_refused_in_the_same_words(hold: Hold, seven: bytes) -> None:
    held = hold(max_pending=4, log_level="warning")
    held.server.catalogue.admission._connections = lambda: 5.0
    connections = [held.ask(request(seven)), *(held.server.open().send(request(seven)) for _ in range(3))]
    held.server.turn()
    parsed = held.server.ask(request(seven))  # the one that is over the bound
    with held.server.open() as connection:
        before = Watched.taken
        unparsed = [
            connection.send(shed(seven, query=query, more=more)).answer()
            for query, more in (
                (b"", b""),
                (b"?top_k=3", b"Connection: keep-alive\r\n"),
                (b"?model=x", b"Accept: */*\r\n"),
            )
        ]
        with_id = connection.send(request(seven)).answer()
        assert dict(with_id.headers)["x-request-id"] == "same-for-both"
        large = request(seven + b"x" * 500_000)
        early = connection.send(large[:300_000]).answer()
        connection.send(large[300_000:])
        assert connection.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").answer().status == 200
        assert Watched.taken == before
    for answer in (*unparsed, with_id, early):
        assert lasting_without_id(answer) == lasting_without_id(parsed)
    held.engine.gate.set()
    for connection in connections:
        with connection:
            assert connection.answer().status == 200


@pytest.mark.parametrize(
    ("bad", "statuses"),
    [
        (b"Content-Length:\t0\r\n", {400}),
        (b"X: a\nTransfer-Encoding: chunked\r\n", {400}),
        (b"X: a\0b\r\n", {400}),
        (b"Host: b\r\n", {400}),
        (b"X: a\r\n folded\r\n", {400}),
        (b"Connection: close\r\n", {503}),
    ],
)
def test_what_is_wrong_when_calm_is_wrong_under_overload_and_ends_the_connection(
    hold: Hold, seven: bytes, bad: bytes, statuses: set[int]
) -> None:
    held = hold(max_pending=4, log_level="warning")
    held.server.catalogue.admission._connections = lambda: 5.0
    connections = [held.ask(request(seven)), *(held.server.open().send(request(seven)) for _ in range(3))]
    held.server.turn()
    assert held.server.ask(request(seven)).status == 503
    for data in (shed(seven, more=bad), shed(seven, more=bad) * 2, shed(seven, query=b"?top_k=1", more=bad)):
        with held.server.open() as connection:
            answer = connection.send(data).answer()
            assert answer.status in statuses
            assert ("connection", "close") in answer.headers
            assert connection.is_closed()
    with held.server.open() as connection:
        http_1_0 = shed(seven).replace(b"HTTP/1.1", b"HTTP/1.0")
        assert ("connection", "close") in connection.send(http_1_0).answer().headers
        assert connection.is_closed()
    held.engine.gate.set()
    for connection in connections:
        with connection:
            assert connection.answer().status == 200


def test_a_passed_deadline_is_504_and_frees_the_place(hold: Hold, seven: bytes) -> None:
    held = hold(request_timeout_s=1e-9)
    answer = held.server.ask(request(seven))
    assert answer.status == 504
    assert b'"code":"deadline_exceeded"' in answer.body
    assert (held.server.catalogue.admission.pending, held.server.waiting) == (0, 0)


def test_a_bad_picture_among_good_ones_of_its_batch_fails_alone(hold: Hold, seven: bytes) -> None:
    held = hold(inline_decode_pixels=1 << 20)
    first = held.ask(request(seven))
    with ExitStack() as stack:
        connections = [
            stack.enter_context(held.server.open()).send(request(body)) for body in (seven, seven[:60], seven, seven)
        ]
        held.server.turn()
        assert held.server.waiting == 4
        held.engine.gate.set()
        assert [connection.answer().status for connection in connections] == [200, 422, 200, 200]
    with first:
        assert first.answer().status == 200


def test_requests_in_flight_at_a_stop_are_answered_and_their_connections_closed(hold: Hold, seven: bytes) -> None:
    held = hold()
    connections = [held.ask(request(seven)), *(held.server.open().send(request(seven)) for _ in range(5))]
    idle = held.server.open()
    held.server.turn()
    held.server.stop()
    with idle:
        assert idle.is_closed()  # so the service has noticed
    held.engine.gate.set()
    for connection in connections:
        with connection:
            answer = connection.answer()
            assert answer.status == 200
            assert ("connection", "close") in answer.headers
            assert connection.is_closed()
    held.server.join()
