/* The page of `crnn-deploy serve`: images go in, each is shown with its text.

An item is one image of the page. Items wait in a queue, go to the server in groups, and come back with a result or with an
error. What comes from a file or from the server becomes text of the page and never HTML. */

import { isSettled, makeCard, showCard } from "./cards.js";
import { copied, jsonOf, tsvOf } from "./copying.js";
import { droppedFiles, pastedFiles } from "./files.js";
import { counted } from "./words.js";

const GROUP = 8; // images in one request
const GROUP_BYTES = 4 * 2 ** 20; // of one request, unless one image alone has more
const IN_FLIGHT = 3; // requests at a time
const TRIES = 5; // after an answer "overloaded"
const LONGEST_WAIT = 30; // seconds
const TOKEN = "crnn-deploy token";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const options = page.options.elements;

let token = sessionStorage.getItem(TOKEN);
let models = [];
let items = []; // in the order they came
let waiting = []; // those of them that are to be sent
const requests = new Set(); // an AbortController each
let groupSize = GROUP; // halved when the server is overloaded, doubled when it answers
let locked = false; // until there is a token
let heldUntil = 0; // by performance.now()
let timer = 0; // ends the hold
let shown = 0; // timer of what is said
let changed = 0; // timer of changed options
let unsaid = []; // items that are done and not yet told to a screen reader

// ---- the server

function ask(path, init) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...init, headers, cache: "no-store" });
}

async function loadModels() {
  let response;
  try {
    response = await ask("v1/models");
    if (response.ok) {
      models = (await response.json()).models;
    }
  } catch {
    return notice("The server cannot be reached; reload the page when it runs.");
  }
  if (response.status === 401) {
    return lock();
  }
  if (!response.ok) {
    return notice(`The server does not say which models it has (${response.status}).`);
  }
  notice("");
  const chosen = options.model.value;
  options.model.replaceChildren(...models.map(({ name }) => new Option(name, name, false, name === chosen)));
  showModel();
}

function lock() {
  page["token-help"].textContent = token
    ? "The server does not take this token. Ask the one who runs it for another."
    : "This server asks for a token. It is kept until this tab is closed.";
  locked = true;
  page["token-form"].hidden = false;
  page.token.focus();
}

page["token-form"].addEventListener("submit", async (event) => {
  event.preventDefault();
  token = page.token.value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    page["token-help"].textContent = "A token has no spaces and none but ASCII characters.";
    return;
  }
  sessionStorage.setItem(TOKEN, token);
  page.token.value = "";
  page["token-form"].hidden = true;
  locked = false;
  page.choose.focus();
  await loadModels();
  pump();
});

// ---- options

function query() {
  const chosen = new URLSearchParams({ chars: "true" });
  for (const name of ["model", "decoder", "nbest", "rotate"]) {
    if (options[name].value) {
      chosen.set(name, options[name].value);
    }
  }
  return chosen;
}

/** What the chosen model is and allows. */
function showModel() {
  const model = models.find(({ name }) => name === options.model.value);
  if (model) {
    page.server.textContent = `${model.name}: ${model.alphabet_size} characters, file ${model.digest.slice(0, 8)}`;
    options.decoder.options[0].text = `Default (${model.decoder})`;
    options.decoder.querySelector("[value=beam]").disabled = options.nbest.disabled = model.output === "argmax";
    if (model.output === "argmax") {
      options.decoder.value = options.nbest.value = "";
    }
  }
  const address = new URL("v1/read", document.baseURI);
  const chosen = query();
  chosen.delete("chars");
  address.search = chosen;
  page.curl.textContent = `curl -F image=@word.png '${address}'`;
}

page.options.addEventListener("change", ({ target }) => {
  const model = models.find(({ name }) => name === options.model.value);
  const finds = options.decoder.value || model?.decoder;
  if (finds !== "beam" && options.nbest.value) {
    // only a beam search finds several texts
    if (target === options.nbest) {
      options.decoder.value = "beam";
    } else {
      options.nbest.value = "";
    }
  }
  showModel();
  clearTimeout(changed);
  changed = setTimeout(readAll, 150); // arrow keys pass several values
});
page.options.addEventListener("submit", (event) => event.preventDefault());

// ---- the queue

/** Read every image anew, as the options are now. */
function readAll() {
  for (const request of requests) {
    request.abort();
  }
  requests.clear();
  waiting = [];
  heldUntil = 0;
  queue(items);
}

/** Read some that failed or wait for the server's recovery, now. */
function readAgain(some) {
  heldUntil = 0;
  queue(some);
}

/** Put items that are in no request where they belong among those that wait. */
function queue(some) {
  for (const item of some) {
    item.tries = 0;
    item.again = false;
    show(item, "waiting", "Waiting");
  }
  const together = new Set([...waiting, ...some]);
  waiting = items.filter((item) => together.has(item));
  pump();
}

/** Put back at the front what was sent in vain. */
function putBack(group) {
  waiting.unshift(...group.filter(({ removed }) => !removed));
}

function pump() {
  clearTimeout(timer);
  const hold = heldUntil - performance.now();
  if (!locked && waiting.length && hold > 0) {
    timer = setTimeout(pump, hold);
  } else if (!locked) {
    while (requests.size < IN_FLIGHT && waiting.length) {
      send(nextGroup());
    }
  }
  report();
}

function nextGroup() {
  const group = [waiting.shift()];
  let bytes = group[0].file.size;
  while (!group[0].alone && waiting.length && !waiting[0].alone && group.length < groupSize) {
    bytes += waiting[0].file.size;
    if (bytes > GROUP_BYTES) {
      break;
    }
    group.push(waiting.shift());
  }
  return group;
}

async function send(group) {
  const request = new AbortController();
  requests.add(request);
  const body = new FormData();
  for (const item of group) {
    body.append("image", item.file, item.name);
    show(item, "reading", "Reading");
  }
  const begun = performance.now();
  try {
    const response = await ask(`v1/read?${query()}`, { method: "POST", body, signal: request.signal });
    const answer = await response.json().catch(() => ({}));
    if (!request.signal.aborted) {
      take(group, response, answer, performance.now() - begun);
    }
  } catch {
    // the server is away, or a file is
    const lost = await Promise.all(group.map(({ file }) => isLost(file)));
    if (!request.signal.aborted) {
      group.filter((_, at) => lost[at]).forEach((item) => fail(item, "This file can no longer be read from the disk"));
      postpone(group.filter((_, at) => !lost[at]), "The server cannot be reached", 1);
    }
  } finally {
    requests.delete(request);
    pump();
  }
}

/** What a server's answer means for the images that were sent. */
function take(group, response, answer, milliseconds) {
  const { status } = response;
  if ((response.ok || status === 422) && answer.results?.length === group.length) {
    groupSize = Math.min(GROUP, groupSize * 2);
    const { model, digest } = answer;
    group.forEach((item, at) => {
      item.result = answer.results[at];
      item.again = false;
      item.read = { model, digest, milliseconds, server: answer.milliseconds?.total, images: group.length };
      show(item, item.result.error === null ? "done" : "error", item.result.error ?? "");
    });
  } else if (status === 503 || status === 429) {
    postpone(group, "The server is busy", retryAfter(response));
  } else if (status === 401) {
    putBack(group);
    group.forEach((item) => show(item, "waiting", "Waiting for a token"));
    lock();
  } else if (status === 413 && group.length > 1) {
    group.forEach((item) => (item.alone = true));
    putBack(group);
  } else {
    group.forEach((item) => fail(item, answer.detail ?? `The server answered ${status} ${response.statusText}`));
    if (status === 404) {
      loadModels(); // one that was chosen is no longer served
    }
  }
}

/** Seconds that a server asks to wait. */
function retryAfter(response) {
  const said = response.headers.get("Retry-After") ?? "1";
  const seconds = /^\d+$/.test(said) ? Number(said) : (Date.parse(said) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0.5), LONGEST_WAIT) : 1;
}

/** Try a group again later, in smaller requests; an image that was tried often enough fails. */
function postpone(group, reason, seconds) {
  groupSize = Math.max(1, groupSize >> 1);
  const lasting = [];
  for (const item of group) {
    item.tries += 1;
    if (item.tries < TRIES) {
      lasting.push(item);
    } else {
      fail(item, `${reason}, ${TRIES} times in a row`);
    }
  }
  if (lasting.length) {
    const wait = Math.min(seconds * Math.max(...lasting.map((item) => item.tries)), LONGEST_WAIT);
    heldUntil = Math.max(heldUntil, performance.now() + wait * 1000);
    putBack(lasting);
    for (const item of lasting) {
      item.again = true;
      show(item, "waiting", `${reason}; tries again in ${Math.ceil(wait)} s (${item.tries} of ${TRIES - 1})`);
    }
  }
}

function isLost(file) {
  return file.slice(0, 1).arrayBuffer().then(() => false, () => true);
}

function fail(item, error) {
  item.result = { name: item.name, text: "", confidence: null, status: "error", error };
  item.read = {};
  item.again = true;
  show(item, "error", error);
}

// ---- images

const ACTIONS = {
  again: (item) => readAgain([item]),
  copy: ({ result }) => copy(result.text, "the text"),
  remove,
};

/** Show an item's state. */
function show(item, state, note) {
  if (!item.removed) {
    showCard(item, state, note);
    if (isSettled(item)) {
      unsaid.push(item);
    }
  }
}

function add(files) {
  const fresh = files.map((file) => ({ file, name: file.name, tries: 0 }));
  const cards = document.createDocumentFragment();
  for (const item of fresh) {
    cards.append(makeCard(page.card, item, ACTIONS));
  }
  page.cards.append(cards);
  page.results.hidden = false;
  items.push(...fresh);
  queue(fresh);
}

function remove(item) {
  item.removed = true;
  URL.revokeObjectURL(item.image.src);
  items = items.filter((other) => other !== item);
  waiting = waiting.filter((other) => other !== item);
  unsaid = unsaid.filter((other) => other !== item);
  const next = item.card.nextElementSibling ?? item.card.previousElementSibling;
  (next?.querySelector(".remove") ?? page.choose).focus();
  item.card.remove();
  page.results.hidden = !items.length;
  report();
}

for (const [button, input] of [
  [page.choose, page.files],
  [page.photograph, page.camera],
]) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
}

addEventListener("paste", (event) => {
  const files = pastedFiles(event.clipboardData);
  if (files.length) {
    event.preventDefault();
    add(files);
  } else if (event.target !== page.token) {
    say("There is no image in the clipboard.");
  }
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  document.body.classList.toggle("dragging", relatedTarget !== null);
});
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const found = await droppedFiles(event.dataTransfer);
  if (found.length) {
    add(found);
  } else {
    say("No image was dropped.");
  }
});

// ---- all images

function report() {
  const settled = items.filter(isSettled);
  const failed = settled.filter(({ state }) => state === "error");
  const errors = failed.length ? `, ${failed.length} with an error` : "";
  page.summary.textContent = `${settled.length - failed.length} of ${counted(items.length, "image")} read${errors}`;
  page.progress.max = items.length || 1;
  page.progress.value = settled.length;
  page.progress.classList.toggle("done", settled.length === items.length);
  page["all-again"].hidden = !items.some(({ again }) => again);
  if (unsaid.length && settled.length === items.length) {
    const [{ name, result }] = unsaid;
    page.said.textContent =
      unsaid.length === 1 ? `${name}: ${result.error ?? (result.text || "No text found")}` : page.summary.textContent;
    unsaid = [];
  }
}

page["all-again"].addEventListener("click", () => {
  readAgain(items.filter(({ again }) => again));
  page.choose.focus();
});

page.clear.addEventListener("click", () => {
  for (const request of requests) {
    request.abort();
  }
  requests.clear();
  for (const item of items) {
    item.removed = true;
    URL.revokeObjectURL(item.image.src);
  }
  [items, waiting, unsaid] = [[], [], []];
  page.cards.replaceChildren();
  page.results.hidden = true;
  page.choose.focus();
  say("All images are removed.");
});

page["show-boxes"].addEventListener("change", ({ target }) => page.cards.classList.toggle("without-boxes", !target.checked));
page["show-numbers"].addEventListener("change", ({ target }) => page.cards.classList.toggle("with-numbers", target.checked));

/** Results of all images that are read or have an error. */
function results() {
  return items
    .filter(isSettled)
    .map(({ name, result, read: { model, digest } }) => ({ ...result, name, model, digest }));
}

page["copy-tsv"].addEventListener("click", () => copy(tsvOf(results()), counted(results().length, "row")));
page["copy-json"].addEventListener("click", () => copy(jsonOf(results()), counted(results().length, "result")));

async function copy(text, what) {
  say((await copied(text)) ? `Copied ${what}.` : "This browser does not let the page copy.");
}

/** Say what came of an action, in sight for a moment. */
function say(text) {
  clearTimeout(shown);
  page.toast.textContent = text;
  shown = setTimeout(() => (page.toast.textContent = ""), 4000);
}

function notice(text) {
  page.notice.textContent = text;
  page.notice.hidden = !text;
}

showModel();
loadModels();
