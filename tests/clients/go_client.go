// Go's own client, as it is by default: go run go_client.go URL SEVEN.png
// Prints a line for each case: its name, a tab, and the status with the answer's label or error code.

package main

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"regexp"
	"sort"
	"strings"
	"time"
)

const (
	oversized = 16_000_000
	atOnce    = 100
	timeout   = 20 * time.Second
)

var (
	said   = regexp.MustCompile(`"(?:label|code)": ?"([^"]*)"`)
	client = &http.Client{Timeout: timeout}
	url    = os.Args[1]
)

func ask(method string, path string, body io.Reader, contentType string, expect string) (*http.Response, string, error) {
	request, err := http.NewRequest(method, url+path, body)
	if err != nil {
		return nil, "", err
	}
	request.Header.Set("Content-Type", contentType)
	if expect != "" {
		request.Header.Set("Expect", expect)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, string(text), err
}

func post(path string, body io.Reader, contentType string, expect string) string {
	answer, text, err := ask("POST", path, body, contentType, expect)
	if err != nil {
		return err.Error()
	}
	if found := said.FindStringSubmatch(text); found != nil {
		text = found[1]
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, text)
}

// A body of a length that the client does not know: it goes out in chunks.
func stream(body []byte) io.Reader {
	return io.MultiReader(bytes.NewReader(body[:100]), bytes.NewReader(body[100:]))
}

func form(picture []byte) (io.Reader, string) {
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	part, _ := writer.CreateFormFile("file", "sieben – 7.png")
	_, _ = part.Write(picture)
	_ = writer.Close()
	return &body, writer.FormDataContentType()
}

func together(picture []byte) string {
	answers := make(chan string, atOnce)
	for index := 0; index < atOnce; index++ {
		go func() { answers <- post("/predict", bytes.NewReader(picture), "image/png", "") }()
	}
	different := map[string]bool{}
	for index := 0; index < atOnce; index++ {
		different[<-answers] = true
	}
	var all []string
	for answer := range different {
		all = append(all, answer)
	}
	sort.Strings(all)
	return strings.Join(all, ", ")
}

func head() string {
	_, got, err := ask("GET", "/models", nil, "", "")
	if err != nil {
		return err.Error()
	}
	answer, body, err := ask("HEAD", "/models", nil, "", "")
	if err != nil {
		return err.Error()
	}
	length := "another length"
	if answer.ContentLength == int64(len(got)) {
		length = "GET's length"
	}
	return fmt.Sprintf("%d %s%s", answer.StatusCode, length, body)
}

func main() {
	picture, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	large := make([]byte, oversized)
	formBody, formType := form(picture)
	tell := func(name string, answer string) { fmt.Printf("net/http: %s\t%s\n", name, answer) }
	tell("a picture", post("/predict", bytes.NewReader(picture), "image/png", ""))
	tell("the next picture", post("/predict", bytes.NewReader(picture), "image/png", ""))
	tell("a form", post("/predict", formBody, formType, ""))
	tell("a stream", post("/predict", stream(picture), "image/png", ""))
	tell("100 at once", together(picture))
	tell("HEAD", head())
	tell("no such path", post("/nowhere", bytes.NewReader(picture), "image/png", ""))
	tell("oversized", post("/predict", bytes.NewReader(large), "image/png", ""))
	tell("an oversized stream", post("/predict", stream(large), "image/png", ""))
	tell("oversized to no such path", post("/nowhere", stream(large), "image/png", ""))
	tell("oversized text", post("/predict", bytes.NewReader(large), "text/plain", ""))
	tell("Expect", post("/predict", bytes.NewReader(picture), "image/png", "100-continue"))
	tell("oversized with Expect", post("/predict", bytes.NewReader(large), "image/png", "100-continue"))
	tell("a picture after all that", post("/predict", bytes.NewReader(picture), "image/png", ""))
}
