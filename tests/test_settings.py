import pytest

from app.errors import InvalidSetting
from app.settings import Settings, allowed_range, env_name, ignored_variables


def test_defaults_listen_on_this_machine_only() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 0)


def test_the_environment_is_read_and_options_come_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLASS_PORT", "9000")
    monkeypatch.setenv("IMAGECLASS_ENGINE", "tensorflow")
    assert Settings.load().port == 9000
    assert Settings.load(port=9001).port == 9001
    assert Settings.load(port=9001).engine == "tensorflow"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("IMAGECLASS_PORT", "99999", "0 to 65535"),
        ("IMAGECLASS_PORT", "10.0.0.1:8000", "0 to 65535"),
        ("IMAGECLASS_ENGINE", "torch", "auto | openvino | tensorflow"),
        ("IMAGECLASS_REQUEST_TIMEOUT_S", "0", "above 0"),
        ("IMAGECLASS_MAX_BATCH_SIZE", "many", "1 to 1024"),
        ("IMAGECLASS_WORKERS", "-1", "0 to 256"),
        ("IMAGECLASS_INLINE_DECODE_PIXELS", "-1", "0 to 1073741824"),
        ("IMAGECLASS_ACCEPTED_FORMATS", "png,jxl", "some of jpeg,png,webp,bmp,gif,tiff,avif,heic"),
        ("IMAGECLASS_ACCESS_LOG", "maybe", "true | false"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting) as caught:
        Settings.load()
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert allowed in str(caught.value)


def test_every_setting_says_what_it_is_and_every_number_has_bounds() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.annotation in (int, float, int | None):
            assert allowed_range(name), name


def test_a_misspelt_variable_is_told_with_the_name_that_was_meant() -> None:
    (sentence,) = ignored_variables({"IMAGECLASS_PROT": "9000", "IMAGECLASS_PORT": "9000", "PATH": "/bin"})
    assert "IMAGECLASS_PROT" in sentence
    assert "IMAGECLASS_PORT?" in sentence


KUBERNETES = {
    "IMAGECLASS_PORT": "tcp://10.96.0.7:8000",
    "IMAGECLASS_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "IMAGECLASS_PORT_8000_TCP_ADDR": "10.96.0.7",
    "IMAGECLASS_PORT_8000_TCP_PORT": "8000",
    "IMAGECLASS_PORT_8000_TCP_PROTO": "tcp",
    "IMAGECLASS_SERVICE_HOST": "10.96.0.7",
    "IMAGECLASS_SERVICE_PORT": "8000",
    "IMAGECLASS_SERVICE_PORT_HTTP": "8000",
}
"""What a pod finds for a Service called imageclass."""
KUBERNETES_GRPC = {name.replace("IMAGECLASS_", "IMAGECLASS_GRPC_"): value for name, value in KUBERNETES.items()}


def test_addresses_that_kubernetes_sets_are_no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (KUBERNETES | KUBERNETES_GRPC).items():
        monkeypatch.setenv(name, value)
    assert (Settings.load().port, Settings.load().grpc_port) == (8000, 0)
    assert Settings.load(port=9001).port == 9001


@pytest.mark.parametrize("injected", [KUBERNETES, KUBERNETES_GRPC, KUBERNETES | KUBERNETES_GRPC])
def test_variables_that_kubernetes_sets_are_one_warning(injected: dict[str, str]) -> None:
    (sentence,) = ignored_variables(injected)
    assert "enableServiceLinks: false" in sentence
    for name in injected.keys() & {"IMAGECLASS_PORT", "IMAGECLASS_GRPC_PORT"}:
        assert f"{name}=tcp://10.96.0.7:8000" in sentence


def test_nothing_is_said_if_none_takes_the_place_of_a_setting() -> None:
    other = {name.replace("IMAGECLASS_", "IMAGECLASS_WEB_"): value for name, value in KUBERNETES.items()}
    assert ignored_variables(KUBERNETES | other | {"IMAGECLASS_PORT": "8000"}) == []


def test_environment_names_have_the_one_prefix() -> None:
    assert env_name("max_pending") == "IMAGECLASS_MAX_PENDING"
