"use strict";
// stochastok and stochastok-uni: random pair splits.

/** Attempts in the text, or splits: floor(n p). */
const budget = (tables, p) => Math.floor(tables.tokens.length * p);

/** Attempts to split a random token into a random pair (StochasTok, Algorithm 2); in the order of their making. */
function splitRandomly(tables, p, random) {
  const parts = canonical(tables),
    n = parts.length,
    limit = tables.data.max_splits ?? Infinity;
  for (let attempt = budget(tables, p); attempt > 0 && parts.length - n !== limit; attempt--) {
    // Lemire's exact draws (2019): the high half of the bits draws the token, the low half its split.
    let [high, low] = random.bits();
    const size = parts.length;
    let product = high * size;
    while (product % 2 ** 32 < (2 ** 32 - size) % size) {
      [high, low] = random.bits();
      product = high * size;
    }
    const position = Math.floor(product / 2 ** 32);
    const pairs = pairSplits(tables, parts[position]);
    if (pairs.length === 0) continue;
    let chosen = 0;
    if (pairs.length > 1) {
      product = low * pairs.length;
      while (product % 2 ** 32 < (2 ** 32 - pairs.length) % pairs.length) product = random.bits()[1] * pairs.length;
      chosen = Math.floor(product / 2 ** 32);
    }
    parts[position] = pairs[chosen][0];
    parts.push(pairs[chosen][1]);
  }
  return parts;
}

const inOrder = (parts) => parts.sort((a, b) => a[0] - b[0]);

const stochastok = {
  draw: (tables, method, p, random) => inOrder(splitRandomly(tables, p, random)),
  law(tables, method, p, word) {
    const states = splitLaw(tables, p);
    return states && gather(states.map(([parts, weight]) => [partsOf(parts, word), weight]));
  },
};

const stochastokUni = {
  draw(tables, method, p, random) {
    const made = inOrder(splitRandomly(tables, p, random));
    let next = 0;
    return tables.tokens.flatMap((token) => {
      const first = next;
      while (next < made.length && made[next][0] < token.end) next++;
      return next - first === 1 ? [made[first]] : drawOfSize(token, next - first, random);
    });
  },
  law(tables, method, p, word) {
    const states = splitLaw(tables, p);
    if (!states) return null;
    const tokens = tables.tokens.slice(word.first, word.last);
    const sizes = new Map(); // the probability of each list of numbers of parts
    for (const [parts, weight] of states) {
      const key = tokens.map((token) => partsOf(parts, token).length).join();
      sizes.set(key, (sizes.get(key) ?? 0) + weight);
    }
    const all = allSegmentations(tokens);
    return (
      all &&
      all
        .map((parts) => {
          const counts = tokens.map((token) => partsOf(parts, token).length);
          const ways = tokens.reduce((product, token, i) => product * token.ways[0][counts[i]], 1);
          return [parts, (sizes.get(counts.join()) ?? 0) / ways];
        })
        .filter(([, probability]) => probability > 0)
    );
  },
};

/** The parts within the bytes of a token or word. */
const partsOf = (parts, { start, end }) => parts.filter(([from, to]) => from >= start && to <= end);

/** The law of all splits of the text, as [parts, probability]; null where there are too many segmentations. */
function splitLaw(tables, p) {
  const n = tables.tokens.length,
    limit = tables.data.max_splits ?? Infinity;
  const most = tables.tokens.reduce((product, token) => product * token.total[0], 1);
  if (most > MOST_SEGMENTATIONS || most * budget(tables, p) > MOST_STEPS) return null;
  let states = new Map([["", [canonical(tables), 1]]]);
  for (let attempt = budget(tables, p); attempt > 0; attempt--) {
    const next = new Map();
    const put = (parts, weight) => {
      const key = keyOf(parts),
        known = next.get(key);
      if (known) known[1] += weight;
      else next.set(key, [parts, weight]);
    };
    for (const [parts, weight] of states.values()) {
      if (parts.length - n === limit) {
        put(parts, weight);
        continue;
      }
      parts.forEach((part, i) => {
        const pairs = pairSplits(tables, part);
        if (pairs.length === 0) put(parts, weight / parts.length);
        for (const pair of pairs) {
          put([...parts.slice(0, i), ...pair, ...parts.slice(i + 1)], weight / parts.length / pairs.length);
        }
      });
    }
    const same =
      next.size === states.size && [...next].every(([key, [, w]]) => Math.abs(w - states.get(key)?.[1]) < 1e-15);
    states = next;
    if (same) break; // nothing is left to split
  }
  return [...states.values()];
}
