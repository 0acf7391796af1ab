// The request that the page made, as a program. It needs nothing but the language itself.

const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A string of JSON is a string of Python and of JavaScript, too.
const quoted = (text) => JSON.stringify(text);

/** Return the program by language; `needsKey` has it read a key from the environment. */
export function programs({ address, file, needsKey }) {
  return {
    curl: [
      `curl --data-binary @${inShell(file)}`,
      "-H 'Content-Type: application/octet-stream'",
      ...(needsKey ? ['-H "Authorization: Bearer $IMAGECLASS_API_KEY"'] : []),
      inShell(address),
    ].join(" \\\n  "),
    Python: `import json
${needsKey ? "import os\n" : ""}import urllib.request

with open(${quoted(file)}, "rb") as file:
    picture = file.read()
headers = {"Content-Type": "application/octet-stream"}
${needsKey ? 'headers["Authorization"] = "Bearer " + os.environ["IMAGECLASS_API_KEY"]\n' : ""}request = urllib.request.Request(${quoted(address)}, picture, headers)
with urllib.request.urlopen(request) as response:
    answer = json.load(response)
print(answer["label"], answer["probability"])`,
    JavaScript: `import { readFile } from "node:fs/promises";

const response = await fetch(${quoted(address)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/octet-stream",${needsKey ? "\n    Authorization: `Bearer ${process.env.IMAGECLASS_API_KEY}`," : ""}
  },
  body: await readFile(${quoted(file)}),
});
const answer = await response.json();
console.log(answer.label, answer.probability);`,
  };
}
