// The description of this port's endpoints, to be read.

import { h, table } from "./dom.js";

const type = (schema) => {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? type(schema.items) : "anything"}`;
  return schema.type ?? "anything";
};

const MEMBERS = [
  { name: "Member", of: (row) => h("code", {}, row.name) },
  { name: "Is", of: (row) => type(row.schema) },
  { name: "Needed", of: (row) => (row.required ? "yes" : "no") },
  { name: "Remark", of: (row) => row.schema.description ?? "" },
];

function body(content) {
  if (!content) return null;
  const { schema, example } = content["application/json"];
  const rows = Object.entries(schema.properties ?? {}).map(([name, of]) =>
    ({ name, schema: of, required: schema.required?.includes(name) }));
  return [schema.description ? h("p", {}, schema.description) : null,
    rows.length ? table("Body, a JSON object", MEMBERS, rows) : h("p", {}, "Body: a JSON object."),
    example ? [h("p", {}, "Example:"), h("pre", { tabindex: "0" },
      JSON.stringify(example, null, 1))] : null];
}

function curl(method, path, content) {
  const example = content?.["application/json"].example;
  const data = example
    ? ` -H 'Content-Type: application/json' -d '${JSON.stringify(example)}'` : "";
  const verb = method === "POST" && !example ? " -X POST" : "";
  const filled = path.replace("{name}", "digits").replace("{version}", "1")
    .replace("{file}", "docs.js");
  return `curl -s${verb} ${location.origin}${filled}${data}`;
}

function operation(path, method, told) {
  const content = told.requestBody?.content;
  const types = Object.keys(told.responses["200"].content).join(", ");
  return h("details", { id: told.operationId },
    h("summary", {}, h("code", {}, `${method} ${path}`), ` ${told.summary}`),
    body(content), h("p", {}, `Answer: ${types}.`),
    h("pre", { tabindex: "0" }, curl(method, path, content)));
}

async function show() {
  const answer = await fetch("/openapi.json", { credentials: "omit" });
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status} ${answer.statusText}`);
  const document_ = await answer.json();
  const operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, told]) => operation(path, method.toUpperCase(), told)));
  const errors = Object.entries(document_.components.responses).map(([name, { description }]) =>
    ({ status: name.slice(1), when: description }));
  document.title = `${document_.info.title} ${document_.info.version}`;
  document.getElementById("main").replaceChildren(
    h("h1", {}, document_.info.title),
    h("p", {}, `Version ${document_.info.version}. Where keys are asked for, one is sent as `,
      h("code", {}, "Authorization: Bearer KEY"), "."),
    h("h2", {}, "Endpoints"), operations,
    h("h2", {}, "Errors"), table("By status", [
      { name: "Status", of: (row) => row.status },
      { name: "When", of: (row) => row.when },
    ], errors));
}

show().catch((error) => {
  document.getElementById("about").replaceChildren(`${error.message}. Is a key needed? `,
    h("a", { href: "/openapi.json" }, "openapi.json"), " is the same for programs.");
});
