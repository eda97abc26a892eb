/* The files that people drop and paste. */

let pasted = 0;

/** The files of a drop, with those in dropped folders. */
export async function droppedFiles({ files, items }) {
  const entries = [...items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  return entries.some((entry) => entry.isDirectory) ? filesBelow(entries) : [...files];
}

/** The files of a paste. A copied picture has no name of its own: browsers call each of them image.png. */
export function pastedFiles(clipboard) {
  return [...(clipboard?.files ?? [])].map((file) => {
    pasted += file.name === "image.png";
    const name = file.name === "image.png" ? `pasted-${pasted}.png` : file.name;
    return new File([file], name, { type: file.type });
  });
}

/** The files of dropped folders, in the order of their names. */
async function filesBelow(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    } else {
      const reader = entry.createReader();
      const inside = [];
      for (let part = [null]; part.length; inside.push(...part)) {
        part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
      }
      inside.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
      found.push(...(await filesBelow(inside)));
    }
  }
  return found;
}
