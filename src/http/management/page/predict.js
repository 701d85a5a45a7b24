// A prediction by a form that is made from the application's input type.

import { post } from "./api.js";
import { empty, h, ms } from "./dom.js";
import { explanation } from "./explained.js";

const numbers = (text) => text.split(/[\s,;[\]]+/).filter(Boolean).map((word) => {
  const value = Number(word);
  if (Number.isNaN(value)) throw new Error(`'${word}' is no number`);
  return value;
});

function area(id, label, hint, value = "") {
  const field = h("textarea", { id, rows: 4, spellcheck: "false", autocapitalize: "off",
    "aria-describedby": `${id}-hint` }, value);
  return { field, nodes: [h("label", { for: id }, label), field,
    h("p", { id: `${id}-hint`, class: "hint" }, hint)] };
}

/** A row of a tensor: JSON, nested or flat. */
function example({ shape }) {
  const flat = shape.slice(1).map((size) => (size < 0 ? 1 : size)).reduce((a, b) => a * b, 1);
  return JSON.stringify(Array(Math.min(flat, 64)).fill(0));
}

const base64 = (bytes) => {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
};

function bytesForm() {
  const text = area("input", "Bytes, as text", "Sent as UTF-8, or choose a file instead.");
  const file = h("input", { id: "file", type: "file" });
  return { nodes: [text.nodes, h("label", { for: "file" }, "File"), file], async read() {
    const chosen = file.files[0];
    if (chosen) return base64(new Uint8Array(await chosen.arrayBuffer()));
    return base64(new TextEncoder().encode(text.field.value));
  } };
}

function tensorsForm(signature) {
  if (!signature) {
    const { field, nodes } = area("input", "Tensors", "JSON: an object of names and arrays. The "
      + "model has not said what it takes: no container of it is connected.", "{}");
    return { nodes, read: () => JSON.parse(field.value) };
  }
  const fields = signature.inputs.map((input, at) => {
    const dims = input.shape.slice(1).map((size) => (size < 0 ? "any" : size)).join(" \u00d7 ");
    const hint = `${input.datatype}, ${dims || "one value"}: a JSON array, nested or flat.`;
    return { name: input.name, ...area(`input${at}`, input.name, hint, example(input)) };
  });
  return { nodes: fields.map(({ nodes }) => nodes), read: () => Object.fromEntries(
    fields.map(({ name, field }) => [name, JSON.parse(field.value)])) };
}

function formOf(type, signature) {
  if (type === "tensors") return tensorsForm(signature);
  if (type === "bytes") return bytesForm();
  if (type === "strings") {
    const { field, nodes } = area("input", "String", "One input, sent as it stands.");
    return { nodes, read: () => field.value };
  }
  const word = { integers: "whole numbers" }[type] ?? "numbers";
  const { field, nodes } = area("input", "Numbers", `One input: ${word}, with spaces or commas `
    + "between them.", "0");
  return { nodes, read: () => numbers(field.value) };
}

function told(answer, took) {
  const about = answer.default
    ? h("p", { class: "bad" }, `The default output: ${answer.default_explanation ?? ""}`)
    : h("p", { class: "good" }, "A prediction.");
  const output = typeof answer.output === "string" ? answer.output : JSON.stringify(answer.output);
  return [h("h2", {}, "Answer"), about, h("pre", { tabindex: "0", role: "group",
    "aria-label": "Output" }, output ?? JSON.stringify(answer)),
  h("p", {}, `Query ${answer.query_id ?? "unknown"}, ${ms(took)} with the way from this page.`),
  answer.explain ? explanation(answer.explain) : null].filter(Boolean);
}

async function send({ name, read, place }, explain, withKey) {
  const began = performance.now();
  try {
    const input = await read();
    const path = `/admin/predict/${encodeURIComponent(name)}${explain ? "?explain=1" : ""}`;
    const answer = await post(path, { input }, { withKey });
    place.replaceChildren(...told(answer, performance.now() - began));
  } catch (error) {
    const advice = error.status === 401 || error.status === 403
      ? " Predictions need a key of the role predict or admin: enter one below the input." : "";
    place.replaceChildren(h("p", { class: "bad" }, error.message + advice));
  }
}

/** Which application; the form follows. */
async function choose({ main, signal }) {
  const names = await post("/admin/get_all_applications", { verbose: false });
  if (signal.aborted) return;
  const field = h("select", { id: "app" }, names.map((name) => h("option", {}, name)));
  main.replaceChildren(h("h1", {}, "Try a prediction"),
    names.length ? h("form", { submit(event) {
      event.preventDefault();
      location.hash = `#/predict/${encodeURIComponent(field.value)}`;
    } }, h("label", { for: "app" }, "Application"), field, h("button", {}, "Go on"))
      : empty("There are no applications yet.",
        h("code", {}, "clipper admin apps add NAME --input-type doubles"), " adds one."));
}

export async function predict(context, name) {
  if (!name) return choose(context);
  const { main, signal, you } = context;
  const app = await post("/admin/get_application", { name });
  if (signal.aborted) return undefined;
  if (!app.name) {
    main.replaceChildren(h("h1", {}, "Try a prediction"), empty(
      `There is no application '${name}'.`, h("a", { href: "#/predict" }, "Choose another"), "."));
    return undefined;
  }
  const models = app.input_type === "tensors" && app.linked_models.length
    ? await post("/admin/get_all_models", { verbose: true }) : [];
  const current = models.find((model) => model.is_current_version
    && app.linked_models.includes(model.model_name) && model.signature);
  const { nodes, read } = formOf(app.input_type, current?.signature);
  const place = h("div", { "aria-live": "polite", class: "answer" });
  const other = h("input", { id: "other-key", type: "password", autocomplete: "off" });
  const explain = h("input", { id: "explain", type: "checkbox" });
  const button = h("button", {}, "Predict");
  main.replaceChildren(h("h1", {}, `Try a prediction of ${name}`),
    h("p", {}, h("a", { href: `#/app/${encodeURIComponent(name)}` }, "The application"),
      `. It counts as any other query. Input: ${app.input_type}.`),
    h("form", { async submit(event) {
      event.preventDefault();
      button.disabled = true;
      await send({ name, read, place }, explain.checked, other.value.trim());
      button.disabled = false;
    } }, nodes, you.may.includes("predict") ? null : [
      h("label", { for: "other-key" }, "Key for predictions"), other,
      h("p", { class: "hint" }, "Yours may only look. This one is used for this form alone.")],
    h("p", {}, explain, " ", h("label", { for: "explain" }, "Explain the answer")),
    button), place);
  return undefined;
}
