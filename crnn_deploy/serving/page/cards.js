/* Cards: an image, its text with the confidence of each character, and where each character is. */

import { counted, grade, made, percent, told } from "./words.js";

const ENLARGED = 3; // times, at most, for small pictures

/** Whether an item is read, or cannot be. */
export function isSettled({ state }) {
  return state === "done" || state === "error";
}

/** The card of an item: what shows the image, and what can be done with it (`actions`, by the name of the button). */
export function makeCard(template, item, actions) {
  const card = template.content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  item.card = card;
  item.parts = { text: part("text"), note: part("note"), figures: part("figures"), boxes: part("boxes") };
  item.image = card.querySelector("img");
  part("name").textContent = part("name").title = item.name;
  item.image.alt = item.name;
  item.image.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = item.image;
    const frame = part("frame").style;
    frame.width = `min(${width * ENLARGED}px, ${(14 * width) / height}rem)`;
    frame.aspectRatio = `${width} / ${height}`;
    item.parts.boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawBoxes(item);
  });
  item.image.addEventListener("error", () => {
    part("frame").hidden = true;
    part("no-picture").hidden = false;
  });
  item.image.src = URL.createObjectURL(item.file);
  for (const [action, act] of Object.entries(actions)) {
    part(action).addEventListener("click", () => act(item));
    part(action).setAttribute("aria-label", `${part(action).title}: ${item.name}`);
  }
  item.parts.text.addEventListener("keydown", (event) => moveAmongChars(item, event));
  for (const kind of ["pointerover", "focusin"]) {
    card.addEventListener(kind, ({ target }) => activate(item, target.dataset.at));
  }
  for (const kind of ["pointerleave", "focusout"]) {
    card.addEventListener(kind, () => activate(item, undefined));
  }
  return card;
}

/** Show an item's state, what there is to say of it, and its text once it is settled. */
export function showCard(item, state, note) {
  const { card, parts } = item;
  item.state = state;
  card.dataset.state = state;
  parts.note.textContent = note;
  card.querySelector(".again").hidden = !item.again;
  card.querySelector(".copy").hidden = state !== "done";
  if (isSettled(item)) {
    showText(item);
    showAlternatives(item);
    drawBoxes(item);
    parts.figures.textContent = figures(item);
  }
}

function showText({ result, parts, name }) {
  const { text, chars } = result;
  const asOne = chars?.length && chars.map(({ char }) => char).join("") === text;
  if (asOne) {
    parts.text.replaceChildren(
      ...chars.map(({ char, confidence }, at) => {
        const span = made("span", `char ${grade(confidence)}`, char);
        span.dataset.at = at;
        span.dataset.number = Math.floor(confidence * 100);
        span.title = told(char, confidence);
        span.tabIndex = at ? -1 : 0;
        span.setAttribute("role", "option");
        span.setAttribute("aria-label", span.title);
        return span;
      }),
    );
    parts.text.setAttribute("role", "listbox");
    parts.text.setAttribute("aria-orientation", "horizontal");
    parts.text.setAttribute("aria-label", `Characters of ${name}: ${text}`);
  } else {
    parts.text.replaceChildren(...(text || result.error !== null ? [text] : [made("span", "empty", "No text found")]));
    for (const attribute of ["role", "aria-orientation", "aria-label"]) {
      parts.text.removeAttribute(attribute);
    }
  }
}

function showAlternatives({ result, card }) {
  const details = card.querySelector(".alternatives");
  const found = result.alternatives ?? [];
  details.hidden = !found.length;
  details.firstElementChild.textContent = `${counted(found.length, "likeliest text")} and their log scores`;
  details.lastElementChild.replaceChildren(
    ...found.map(({ text, score }) => {
      const row = made("li", "", "");
      row.append(made("bdi", "", text), made("span", "", score.toFixed(2).replace("-", "\u2212")));
      return row;
    }),
  );
}

/** Boxes of the characters over the picture: the columns in which the network saw each. */
function drawBoxes({ result, image, parts }) {
  const height = image.naturalHeight;
  parts.boxes.replaceChildren(
    ...(height ? (result?.chars ?? []) : []).map((char, at) => {
      const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const { left, right, top = 0, bottom = height } = char;
      const sides = { x: left, y: top, width: right - left, height: bottom - top };
      for (const [name, value] of Object.entries(sides)) {
        box.setAttribute(name, value);
      }
      box.setAttribute("class", grade(char.confidence));
      box.dataset.at = at;
      return box;
    }),
  );
}

function figures({ result, read }) {
  if (result.confidence === null) {
    return "";
  }
  const said = [percent(result.confidence)];
  if (result.rotated) {
    said.push(result.rotated === "column" ? "a column" : `turned ${result.rotated}\u00b0`);
  }
  const milliseconds = read.server ?? read.milliseconds;
  const time = `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  said.push(read.images > 1 ? `${read.images} images in ${time}` : time);
  return said.join(" \u00b7 ");
}

/** Make one character stand out, in the text and in the picture, and say how sure it is; none for undefined. */
function activate(item, at) {
  if (item.active === at || item.state !== "done") {
    return;
  }
  for (const element of item.card.querySelectorAll("[data-at]")) {
    element.classList.toggle("active", element.dataset.at === at);
    if (element.role === "option") {
      element.setAttribute("aria-selected", element.dataset.at === at);
    }
  }
  item.active = at;
  const char = item.result.chars?.[at];
  item.parts.figures.textContent = char ? told(char.char, char.confidence) : figures(item);
}

function moveAmongChars({ parts }, event) {
  const chars = [...parts.text.querySelectorAll(".char")];
  const at = chars.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: chars.length - 1 }[event.key];
  if (at >= 0 && chars[to]) {
    event.preventDefault();
    chars[at].tabIndex = -1;
    chars[to].tabIndex = 0;
    chars[to].focus();
  }
}
