// What AsyncAPI's own parser and ajv, in its strict mode, have against what we publish: a line of JSON each.
//
//   node validate.mjs asyncapi FILE      the document
//   node validate.mjs values SCHEMA      each line of standard input, a JSON text
import { readFileSync } from "node:fs";

const [what, file] = process.argv.slice(2);
const text = readFileSync(file, "utf8");
const found = what === "asyncapi" ? await ofDocument() : await ofValues();
for (const one of found) console.log(JSON.stringify(one));

async function ofDocument() {
  const { Parser } = await import("@asyncapi/parser");
  const { diagnostics } = await new Parser().parse(text);
  return diagnostics.map(({ code, message, path, severity }) => ({ severity, code, message, path: path.join(".") }));
}

async function ofValues() {
  const { default: Ajv } = await import("ajv/dist/2020.js");
  const { default: addFormats } = await import("ajv-formats");
  const ajv = new Ajv({ strict: true, allErrors: true });
  addFormats(ajv);
  const validate = ajv.compile(JSON.parse(text));
  return readFileSync(0, "utf8").split("\n").filter(Boolean).flatMap((line, number) =>
    validate(JSON.parse(line)) ? [] : validate.errors.map((error) => ({ line: number, ...error })));
}
