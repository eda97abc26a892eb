/* What is copied: a text, or the results of all images. */

const COLUMNS = ["path", "text", "confidence", "status", "error"];
const ESCAPES = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** Results as `infer --format tsv` writes them of files in its own folder. */
export function tsvOf(results) {
  const cells = ({ name, text, confidence, status, error }) => [name, text, confidence?.toFixed(6) ?? "", status, error ?? ""];
  const rows = [COLUMNS, ...results.map(cells)];
  const escaped = (cell) => cell.replace(/[\\\t\n\r]/g, (sign) => ESCAPES[sign]);
  return rows.map((row) => `${row.map(escaped).join("\t")}\n`).join("");
}

export function jsonOf(results) {
  return `${JSON.stringify(results, null, 1)}\n`;
}

/** Put a text into the clipboard; whether the browser let it. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // browsers give their clipboard to https and to this machine alone
    const area = document.createElement("textarea");
    const before = document.activeElement;
    area.className = "unseen";
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before.focus();
    return done;
  }
}
