// What was changed, by whom and why, and the way back.

import { Refused, post } from "./api.js";
import { empty, h, renew, time } from "./dom.js";

const shown = (value) =>
  (value === undefined || value === null ? "nothing" : JSON.stringify(value));

const MARKS = { add: "+", added: "+", create: "+", change: "~", changed: "~", remove: "\u2212",
  removed: "\u2212", delete: "\u2212" };

function steps(list) {
  return h("ul", { class: "diff" }, list.map((step) => {
    const what = step.kind && step.thing ? step.kind : step.became;
    const thing = step.thing ?? step.kind;
    return h("li", {}, h("span", {}, `${MARKS[what] ?? ""} ${what} ${thing} ${step.name}`),
      step.why ? `: ${step.why}` : null,
      step.fields?.length ? h("ul", {}, step.fields.map((field) =>
        h("li", {}, `${field.field}: ${shown(field.before ?? field.from)} \u2192 `
          + shown(field.after ?? field.to)))) : null);
  }));
}

/** Shows a plan first, and carries it out only when that is confirmed. */
async function undo(entry, done) {
  const to = String(entry.seq - 1);
  const whole = { to, ...(entry.app ? { app_name: entry.app } : {}) };
  const dialog = h("dialog", { "aria-labelledby": "undo-title", close: () => dialog.remove() },
    h("h2", { id: "undo-title" }, `Undo from event ${entry.seq} on`), h("p", {}, "Planning."));
  document.body.append(dialog);
  dialog.showModal();
  const close = h("button", { type: "button", click: () => dialog.close() }, "Leave it as it is");
  const fill = (...parts) => dialog.replaceChildren(dialog.firstElementChild,
    ...parts.flat(Infinity).filter(Boolean), close);
  let plan;
  try {
    plan = await post("/admin/rollback", { ...whole, dry_run: true });
  } catch (error) {
    fill(h("p", { class: "bad", role: "alert" }, error.message));
    return;
  }
  const where = entry.app ? `of application ${entry.app}` : "of everything";
  if (!plan.steps.length && !plan.refused?.length) {
    fill(h("p", {}, `The state ${where} is the one before event ${entry.seq} already.`));
    return;
  }
  const reason = h("input", { id: "undo-why", value: `undo from event ${entry.seq} on` });
  const go = h("button", { type: "button", class: "danger", async click() {
    go.disabled = true;
    try {
      const made = await post("/admin/rollback", { ...whole, base: plan.base },
        { reason: reason.value });
      if (made.failed) throw new Refused(0, made.failed);
      dialog.close();
      done(`Undone: ${made.done} steps.`);
    } catch (error) {
      const again = error.status === 409 ? " Close this and look at the new plan." : "";
      fill(h("p", { class: "bad", role: "alert" }, error.message + again));
    }
  } }, "Undo");
  const refused = plan.refused ?? [];
  fill(h("p", {}, `The state ${where} becomes what it was after event ${to}:`), steps(plan.steps),
    refused.length ? h("div", { class: "bad", role: "alert" }, h("p", {}, "Not allowed:"),
      steps(refused)) : [h("label", { for: "undo-why" }, "Why"), reason, go]);
}

async function diff(entry, place) {
  try {
    const answer = await post("/admin/journal/diff",
      { from: String(entry.seq - 1), to: String(entry.seq) });
    place.replaceChildren(answer.entries.length ? steps(answer.entries)
      : h("p", {}, "The metadata is the same."));
  } catch (error) {
    place.replaceChildren(h("p", { class: "bad" }, error.message));
  }
}

function row(entry, context) {
  const place = h("div", {}, h("p", {}, "Asking."));
  const { why, from, origin } = entry;
  const mayUndo = context.you.may.includes("operate") && entry.seq > 0;
  return h("li", { "data-key": String(entry.seq) },
    h("p", { class: "what" }, h("span", { class: "seq" }, `${entry.seq} `), entry.what),
    h("p", { class: "who" }, time(entry.recorded_at_ms), ` by ${entry.who}`,
      from ? ` from ${from}` : "", origin ? ` (${origin})` : "",
      why ? [", why: ", h("q", {}, why)] : ", no reason given"),
    h("div", { class: "buttons" },
      h("details", { toggle: (event) => {
        if (event.target.open) diff(entry, place);
      } }, h("summary", { "aria-label": `Difference made by event ${entry.seq}` }, "Difference"),
      place),
      mayUndo ? h("button", { type: "button", "aria-label": `Undo from event ${entry.seq} on`,
        click: () => undo(entry, context.told) }, "Undo from here on") : null));
}

export async function changes({ main, signal, you, follow, failed }) {
  const app = new URLSearchParams(location.hash.split("?")[1] ?? "").get("app");
  const said = h("p", { role: "status" });
  const list = h("ol", { class: "changes" });
  const more = h("button", { type: "button", click: () => older() }, "Older");
  let [newest, oldest] = [0, null];
  const ask = (where) =>
    post("/admin/journal/log", { ...(app ? { app } : {}), limit: 50, ...where });
  const context = { you, told: (text) => said.replaceChildren(text) };
  const rows = (entries) => entries.map((entry) => row(entry, context)).reverse();

  async function newer() {
    const page = await ask(newest ? { after: newest } : {});
    if (signal.aborted) return;
    newest = Math.max(page.last, newest);
    list.prepend(...rows(page.entries));
    if (oldest === null) [oldest, more.hidden] = [page.next ?? null, !page.next];
    none.hidden = list.childElementCount > 0;
  }

  async function older() {
    const page = await ask({ before: oldest });
    [oldest, more.hidden] = [page.next ?? null, !page.next];
    list.append(...rows(page.entries));
  }

  const none = empty("Nothing was changed as far as the journal is kept.",
    h("code", {}, "journal.keep_events"), " says how far that is.");
  main.replaceChildren(h("h1", {}, app ? `Changes of ${app}` : "Changes"),
    h("p", {}, "Newest first. Undoing makes the applications and models what they were before a "
      + "change; the plan is shown first."
      + (you.may.includes("operate") ? "" : " Your key may not: it needs the role operate.")),
    said, list, none, more);
  await newer();
  let isAsking = false;
  follow("", (picture) => {
    if (isAsking || picture.server.last_event <= newest) return;
    isAsking = true;
    newer().catch(failed).finally(() => { isAsking = false; });
  });
}
