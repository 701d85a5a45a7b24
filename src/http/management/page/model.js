// A model version: its replicas, its processes, and what it has learned of its latency.

import { batches } from "./charts.js";
import {
  appLink, empty, figures, h, modelLink, ms, notices, number, rate, renew, share, table, time,
} from "./dom.js";

const VERSIONS = [
  { name: "Version", of: (row) => modelLink(row.model, row.version) },
  { name: "Queries", of: (row) => (row.current ? "go to it" : "do not go to it") },
  { name: "Replicas", is: "number", of: (row) => number(row.replicas) },
  { name: "Processes", is: "number", of: (row) => number(row.kept) },
  { name: "Rate", is: "number", of: (row) => rate(row.per_second) },
  { name: "Waiting", is: "number", of: (row) => number(row.queue) },
];

const REPLICAS = [
  { name: "Replica", of: (row) => String(row.replica) },
  { name: "State", of: (row) => (row.here ? "connected" : "connected to another server") },
  { name: "Batches", is: "number", of: (row) => number(row.batches) },
  { name: "Queries", is: "number", of: (row) => number(row.queries) },
  { name: "Time a batch", is: "number",
    of: (row) => ms(row.batches ? row.busy_ms / row.batches : null) },
];

const PROCESSES = [
  { name: "Process", of: (row) => String(row.number) },
  { name: "State", of: (row) => h("span", {
    class: `badge ${row.state === "serving" ? "good" : row.failures > 2 ? "bad" : "warn"}`,
  }, row.state) },
  { name: "pid", is: "number", of: (row) => (row.pid === null ? number(null) : String(row.pid)) },
  { name: "Starts", is: "number", of: (row) => number(row.starts) },
  { name: "Failed in a row", is: "number", of: (row) => number(row.failures) },
  { name: "Last end", of: (row) => (row.last_end
    ? [row.last_end, ", ", time(row.last_end_ms)] : "none") },
];

function output(children) {
  const told = children.filter(({ lines }) => lines.length);
  if (!told.length) return h("p", {}, "They have written nothing.");
  return told.map(({ number: at, lines }) => h("details", { open: true, "data-key": `out${at}` },
    h("summary", {}, `Process ${at}`),
    h("pre", { tabindex: "0", role: "group", "aria-label": `Output of process ${at}` },
      lines.map(([when, text]) => h("span", {}, time(when), ` ${text}\n`)))));
}

function draw(live, picture) {
  const { description, children, applications } = picture;
  const links = applications.flatMap((name) => [", ", appLink(name)]).slice(1);
  renew(live,
    notices(picture.notices),
    figures(["Replicas", number(picture.replicas)],
      ["Rate", rate(picture.per_second)],
      ["Waiting", number(picture.queue)],
      ["Wait p99", ms(picture.wait_p99_ms)],
      ["Batch mean", number(picture.batch_mean, 1)],
      ["Batch p50", ms(picture.batch_p50_ms)],
      ["Batch p99", ms(picture.batch_p99_ms)],
      ["Cache hits", share(picture.cache_hit_share)],
      ["Errors", number(picture.errors)],
      ["Retried", number(picture.retried)],
      ["Hedged", number(picture.hedged)],
      ["Input", description.input_type]),
    h("p", {}, "Applications: ", links.length ? links : "none asks it"),
    h("h2", {}, "Latency by batch size"),
    picture.batches.length || picture.curve.length ? batches(picture.batches, picture.curve)
      : empty("No batch has been answered yet: what a batch costs is learned from those."),
    h("h2", {}, "Replicas"),
    picture.replica_rows.length ? table("Connected containers", REPLICAS,
      picture.replica_rows.map((row) => ({ ...row, key: String(row.replica) })))
      : empty("No container of this version is connected.", children.length
        ? "Its processes below say why." : h("code", {}, "clipper deploy"),
      children.length ? "" : " starts some, or connect one of your own."),
    h("h2", {}, "Processes of this server"),
    children.length ? [table("Started again when they end", PROCESSES,
      children.map((row) => ({ ...row, key: String(row.number) }))),
    h("h3", {}, "Last output"), output(children)]
      : h("p", {}, "None: its containers are started elsewhere."),
    h("h2", {}, "Versions"), table("Of this model", VERSIONS,
      picture.versions.map((row) => ({ ...row, key: row.version }))));
}

export function model({ main, follow }, name, version) {
  const live = h("div", {}, empty("Asking the server."));
  main.replaceChildren(h("h1", {}, `${name}:${version}`), live);
  const query = `?model=${encodeURIComponent(name)}&version=${encodeURIComponent(version)}`;
  follow(query, (picture) => {
    if (!picture.gone) draw(live, picture);
    else {
      renew(live, empty(`There is no model version '${name}:${version}'.`,
        h("a", { href: "#/" }, "The overview"), " lists those that there are."));
    }
  });
}
