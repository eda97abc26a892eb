/* The page of `crnn-deploy serve`: images go in, each is shown with its text.

An item is one image of the page. What comes from a file or from the server becomes text of the page and never HTML. */

import { isSettled, makeCard, showCard } from "./cards.js";
import { copied, jsonOf, tsvOf } from "./copying.js";
import { droppedFiles, pastedFiles } from "./files.js";
import { Queue } from "./requests.js";
import { counted } from "./words.js";

const TOKEN = "crnn-deploy token";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const options = page.options.elements;
const queue = new Queue({ send, show, report, lock, learn });

let token = sessionStorage.getItem(TOKEN);
let models = [];
let items = []; // in the order they came
let added = 0; // items so far
let shown = 0; // timer of what is said
let changed = 0; // timer of changed options
let unsaid = []; // items that are done and not yet told to a screen reader

// ---- the server

function ask(path, init) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...init, headers, cache: "no-store" });
}

function send(body, signal) {
  return ask(`v1/read?${query()}`, { method: "POST", body, signal });
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

/** Ask which models there are, where an answer's is none that is known: it was swapped for another file. */
function learn({ model, digest }) {
  if (!models.some((known) => known.name === model && known.digest === digest)) {
    loadModels();
  }
}

/** Send nothing until there is a token. */
function lock() {
  queue.lock();
  page["token-help"].textContent = token
    ? "The server does not take this token. Ask the one who runs it for another."
    : "This server asks for a token. It is kept until this tab is closed.";
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
  page.choose.focus();
  await loadModels();
  if (page["token-form"].hidden) {
    queue.unlock();
  }
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

/** Read every image anew, as the options are now. */
function readAll() {
  queue.clear();
  queue.readNow(items);
}

// ---- images

const ACTIONS = {
  again: (item) => queue.readNow([item]),
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
  const fresh = files.map((file) => ({ file, name: file.name, number: (added += 1) }));
  const cards = document.createDocumentFragment();
  for (const item of fresh) {
    cards.append(makeCard(page.card, item, ACTIONS));
  }
  page.cards.append(cards);
  page.results.hidden = false;
  items.push(...fresh);
  queue.add(fresh);
}

function remove(item) {
  queue.remove(item);
  URL.revokeObjectURL(item.image.src);
  items = items.filter((other) => other !== item);
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
  queue.readNow(items.filter(({ again }) => again));
  page.choose.focus();
});

page.clear.addEventListener("click", () => {
  queue.clear();
  for (const item of items) {
    URL.revokeObjectURL(item.image.src);
  }
  [items, unsaid] = [[], []];
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
