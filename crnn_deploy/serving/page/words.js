/* How figures and counts are said, and how an element is made. */

export function grade(confidence) {
  return confidence >= 0.95 ? "sure" : confidence >= 0.8 ? "likely" : confidence >= 0.5 ? "unsure" : "doubtful";
}

export function told(char, confidence) {
  return `${char === " " ? "space" : char}: ${percent(confidence)}`;
}

/** Cut, not rounded: 99.97 % is no certainty. */
export function percent(value) {
  return `${(Math.floor(value * 1000) / 10).toFixed(1)} %`;
}

export function counted(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

export function made(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}
