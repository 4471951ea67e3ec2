// Node's ssh2 as a command: PORT LOGIN [WORDS]; CLIENT_KEY or CLIENT_PASSWORD, CLIENT_TERMINAL.
const { readFileSync } = require("fs");
const { Client } = require("ssh2");

const [port, username, words] = process.argv.slice(2);
const { CLIENT_KEY, CLIENT_PASSWORD, CLIENT_TERMINAL, TERM } = process.env;
const client = new Client();

function opened(error, stream) {
  if (error) throw error;
  let status = 255;
  stream.on("exit", (code) => { status = code ?? 255; });
  stream.on("close", () => { process.exitCode = status; client.end(); process.stdin.destroy(); });
  stream.pipe(process.stdout, { end: false });
  stream.stderr.pipe(process.stderr, { end: false });
  process.stdin.pipe(stream);
  if (CLIENT_TERMINAL) {
    process.stdin.setRawMode(true);
    process.stdout.on("resize", () => stream.setWindow(process.stdout.rows, process.stdout.columns, 0, 0));
  }
}

client.on("ready", () => {
  const pty = CLIENT_TERMINAL && { term: TERM, cols: process.stdout.columns, rows: process.stdout.rows };
  if (words === undefined) client.shell(pty || false, opened);
  else client.exec(words, pty ? { pty } : {}, opened);
});
client.on("error", (error) => { console.error(error.message); process.exitCode = 255; });
client.connect({
  host: "127.0.0.1",
  port: Number(port),
  username,
  password: CLIENT_PASSWORD,
  privateKey: CLIENT_KEY && readFileSync(CLIENT_KEY),
});
