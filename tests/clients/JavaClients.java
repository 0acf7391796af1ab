// Java's own clients, as they are by default: java JavaClients.java URL SEVEN.png
// Prints a line for each case: its name, a tab, and the status with the answer's label or error code.

import static java.util.concurrent.TimeUnit.SECONDS;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;

public class JavaClients {
    static final int OVERSIZED = 16_000_000;
    static final int AT_ONCE = 100;
    static final Duration TIMEOUT = Duration.ofSeconds(20);
    static final Pattern SAID = Pattern.compile("\"(?:label|code)\": ?\"([^\"]*)\"");

    static String url;
    static byte[] seven;

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        seven = Files.readAllBytes(Path.of(arguments[1]));
        modern("HttpClient", HttpClient.newHttpClient()); // asks for an upgrade to HTTP/2 with every first request
        modern("HttpClient 1.1", HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build());
        classic("HttpURLConnection");
        System.exit(0);
    }

    static void modern(String name, HttpClient client) {
        byte[] oversized = new byte[OVERSIZED];
        tell(name + ": a picture", () -> send(client, post("/predict", BodyPublishers.ofByteArray(seven))));
        tell(name + ": the next picture", () -> send(client, post("/predict", BodyPublishers.ofByteArray(seven))));
        tell(name + ": a form", () -> send(client, post("/predict", BodyPublishers.ofByteArray(form()))
                .setHeader("Content-Type", "multipart/form-data; boundary=xyz")));
        tell(name + ": a stream", () -> send(client, post("/predict", stream(seven))));
        tell(name + ": 100 at once", () -> together(client));
        tell(name + ": HEAD", () -> head(client));
        tell(name + ": no such path", () -> send(client, post("/nowhere", BodyPublishers.ofByteArray(seven))));
        tell(name + ": oversized", () -> send(client, post("/predict", BodyPublishers.ofByteArray(oversized))));
        tell(name + ": an oversized stream", () -> send(client, post("/predict", stream(oversized))));
        tell(name + ": oversized to no such path", () -> send(client, post("/nowhere", stream(oversized))));
        tell(name + ": oversized text", () -> send(client, post("/predict", BodyPublishers.ofByteArray(oversized))
                .setHeader("Content-Type", "text/plain")));
        // Only with a picture that is wanted: Java before 19 loses any answer but 100 (JDK-8286171).
        tell(name + ": Expect", () ->
                send(client, post("/predict", BodyPublishers.ofByteArray(seven)).expectContinue(true)));
        tell(name + ": a picture after all that", () ->
                send(client, post("/predict", BodyPublishers.ofByteArray(seven))));
    }

    static void classic(String name) {
        byte[] oversized = new byte[OVERSIZED];
        tell(name + ": a picture", () -> classic(seven, false));
        tell(name + ": a stream", () -> classic(seven, true));
        tell(name + ": oversized", () -> classic(oversized, false));
        tell(name + ": an oversized stream", () -> classic(oversized, true));
        tell(name + ": a picture after all that", () -> classic(seven, false));
    }

    static HttpRequest.Builder post(String path, BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(url + path)).timeout(TIMEOUT)
                .setHeader("Content-Type", "image/png").POST(body);
    }

    /** A body of a length that the client does not know: it goes out in chunks. */
    static BodyPublisher stream(byte[] body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body));
    }

    static byte[] form() {
        byte[] head = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"7.png\"\r\n\r\n"
                .getBytes(StandardCharsets.US_ASCII);
        byte[] tail = "\r\n--xyz--\r\n".getBytes(StandardCharsets.US_ASCII);
        byte[] body = new byte[head.length + seven.length + tail.length];
        System.arraycopy(head, 0, body, 0, head.length);
        System.arraycopy(seven, 0, body, head.length, seven.length);
        System.arraycopy(tail, 0, body, head.length + seven.length, tail.length);
        return body;
    }

    static String send(HttpClient client, HttpRequest.Builder request) throws Exception {
        // Not `send`: while it expects 100 Continue it heeds no timeout.
        return said(client.sendAsync(request.build(), BodyHandlers.ofString()).get(TIMEOUT.toSeconds(), SECONDS));
    }

    static String together(HttpClient client) {
        HttpRequest request = post("/predict", BodyPublishers.ofByteArray(seven)).build();
        var answers = IntStream.range(0, AT_ONCE)
                .mapToObj(index -> client.sendAsync(request, BodyHandlers.ofString())).toList();
        List<String> said = answers.stream().map(answer -> said(answer.join())).distinct().toList();
        return String.join(", ", said);
    }

    static String head(HttpClient client) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/models")).timeout(TIMEOUT);
        String got = client.send(request.GET().build(), BodyHandlers.ofString()).body();
        HttpResponse<String> headed =
                client.send(request.method("HEAD", BodyPublishers.noBody()).build(), BodyHandlers.ofString());
        boolean same = headed.headers().firstValueAsLong("content-length").orElse(-1) == got.length();
        return headed.statusCode() + (same ? " GET's length" : " another length") + headed.body();
    }

    static String classic(byte[] body, boolean chunked) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) new URL(url + "/predict").openConnection();
        connection.setReadTimeout((int) TIMEOUT.toMillis());
        connection.setRequestMethod("POST");
        connection.setRequestProperty("Content-Type", "image/png");
        connection.setDoOutput(true);
        if (chunked) {
            connection.setChunkedStreamingMode(0);
        } else {
            connection.setFixedLengthStreamingMode(body.length);
        }
        try (var out = connection.getOutputStream()) {
            out.write(body);
        }
        int status = connection.getResponseCode();
        InputStream answer = status < 400 ? connection.getInputStream() : connection.getErrorStream();
        return status + " " + matched(new String(answer.readAllBytes(), StandardCharsets.UTF_8));
    }

    static String said(HttpResponse<String> answer) {
        return answer.statusCode() + " " + matched(answer.body());
    }

    static String matched(String body) {
        Matcher found = SAID.matcher(body);
        return found.find() ? found.group(1) : body;
    }

    static void tell(String name, Callable<String> what) {
        String said;
        try {
            said = what.call();
        } catch (Exception error) {
            said = error.toString();
        }
        System.out.println(name + "\t" + said);
    }
}
