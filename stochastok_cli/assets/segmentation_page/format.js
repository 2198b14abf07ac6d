"use strict";
// Elements, numbers and texts. All text of the user and of the vocabulary reaches the document as text nodes and
// attributes.

const data = JSON.parse(document.getElementById("data").textContent);
const tables = readTables(data);
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

/** A new element: attributes, then children (nodes and strings). */
function element(name, attributes = {}, ...children) {
  const node = name.includes(":") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const svg = (name, attributes, ...children) => element(`svg:${name}`, attributes, ...children);

const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A number without the last digits of a double. */
const shortNumber = (value) => Number(value.toPrecision(6));

/** A positive number: as it is up to 7 digits, beyond in powers of 10, given as its logarithm. */
function large(log10) {
  if (log10 < 7) return number(Math.round(10 ** log10));
  const exponent = Math.floor(log10);
  const superscript = [...String(exponent)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return `${number(10 ** (log10 - exponent), 1)} × 10${superscript}`;
}

function percent(value) {
  if (value === 0) return "0%";
  if (value < 0.000001) return "< 0.0001%";
  if (value < 0.00995) return `${Number((100 * value).toPrecision(2))}%`;
  return value < 0.0995 ? `${number(100 * value, 1)}%` : `${number(100 * value)}%`;
}

/** A character for people, and whether that is a mark in its place: for white space and what can't be seen. */
function visibleCharacter(character) {
  const marks = { " ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥" };
  if (character in marks) return [marks[character], true];
  if (/[\p{C}\p{Z}]/u.test(character)) return [`⟨${character.codePointAt(0).toString(16)}⟩`, true];
  return [character, false];
}

/** The text of a token for people; of one that is not UTF-8, its bytes. */
function visible(id) {
  if (data.not_utf8[id]) return [[data.not_utf8[id], true]];
  const characters = [...data.texts[id]].map(visibleCharacter);
  if (/^[\p{M}\u200d]/u.test(data.texts[id])) characters.unshift(["◌", true]);
  return characters;
}

/** The text of a word for people, its beginning if it is long. */
function wordText(word) {
  const characters = charactersOf[word.index].map(([, , text]) => visibleCharacter(text)[0]);
  return characters.length > 24 ? `${characters.slice(0, 23).join("")}…` : characters.join("");
}

const visibleText = (id) =>
  visible(id)
    .map(([text]) => text)
    .join("");

/** The parts of a segmentation; those that differ from the canonical tokens have the colour of their token. */
function chips(parts) {
  return element(
    "div",
    { class: "chips" },
    ...parts.map(([start, end, id]) => {
      const t = tokenAt(start),
        token = tables.tokens[t];
      const same = token.start === start && token.end === end && token.id === id;
      const chip = element("span", {
        class: same ? "chip" : `chip changed h${t % 6}`,
        dir: "auto",
        title: `id ${id}, ${end - start} bytes`,
      });
      let plain = "";
      for (const [text, isMark] of visible(id)) {
        if (!isMark) {
          plain += text;
          continue;
        }
        chip.append(plain, element("span", { class: "mark" }, text));
        plain = "";
      }
      chip.append(plain);
      return chip;
    }),
  );
}

/** The index of the canonical token that has a byte. */
function tokenAt(byte) {
  let low = 0,
    high = tables.tokens.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (tables.tokens[middle].start <= byte) low = middle;
    else high = middle - 1;
  }
  return low;
}
