"use strict";
// The expansion methods of stochastok_cli/tokenization/methods, in the same order of random numbers: for one seed this
// page and `stochastok expand --text` draw the same samples.
//
// A segmentation is a list of parts, and a part is [start, end, id]: the token `id` covers the bytes start to end.

// ---------------------------------------------------------------------------------------------- random numbers

/** The key of a random stream: the first 8 bytes of BLAKE2b, as 2 words of 32 bits, high and low. */
function deriveKey(seed, purpose) {
  const key = blake2b64(new TextEncoder().encode(`${seed}/${purpose}/`));
  return [Number(key >> 32n), Number(key & 0xffffffffn)];
}

/** BLAKE2b (RFC 7693) of some bytes with a digest of 8 bytes, read as a little-endian integer. */
function blake2b64(bytes) {
  const iv = [
    0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
    0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
  ];
  const sigma = [
    "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
    "905724afe1bc683d", "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a",
    "6fe9b308c2d714a5", "a2847615fb9e3cd0",
  ];
  const word = (x) => BigInt.asUintN(64, x);
  const rotate = (x, n) => word((x >> n) | (x << (64n - n)));
  const h = [...iv];
  h[0] ^= 0x01010008n;
  const blocks = Math.max(1, Math.ceil(bytes.length / 128));
  for (let block = 0; block < blocks; block++) {
    const m = new Array(16).fill(0n);
    for (let i = 0; i < 128; i++) {
      m[i >> 3] |= BigInt(bytes[block * 128 + i] ?? 0) << BigInt(8 * (i & 7));
    }
    const v = [...h, ...iv];
    v[12] ^= BigInt(Math.min((block + 1) * 128, bytes.length));
    if (block === blocks - 1) v[14] = word(~v[14]);
    const step = (a, b, c, d, x, y) => {
      v[a] = word(v[a] + v[b] + x);
      v[d] = rotate(v[d] ^ v[a], 32n);
      v[c] = word(v[c] + v[d]);
      v[b] = rotate(v[b] ^ v[c], 24n);
      v[a] = word(v[a] + v[b] + y);
      v[d] = rotate(v[d] ^ v[a], 16n);
      v[c] = word(v[c] + v[d]);
      v[b] = rotate(v[b] ^ v[c], 63n);
    };
    for (let round = 0; round < 12; round++) {
      const s = [...sigma[round % 10]].map((digit) => m[parseInt(digit, 16)]);
      step(0, 4, 8, 12, s[0], s[1]);
      step(1, 5, 9, 13, s[2], s[3]);
      step(2, 6, 10, 14, s[4], s[5]);
      step(3, 7, 11, 15, s[6], s[7]);
      step(0, 5, 10, 15, s[8], s[9]);
      step(1, 6, 11, 12, s[10], s[11]);
      step(2, 7, 8, 13, s[12], s[13]);
      step(3, 4, 9, 14, s[14], s[15]);
    }
    for (let i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
  }
  return h[0];
}

/** The lowest 64 bits of a product; numbers are pairs of 32-bit words, high and low. */
function multiply([aHigh, aLow], [bHigh, bLow]) {
  const a0 = aLow & 0xffff, a1 = aLow >>> 16, b0 = bLow & 0xffff, b1 = bLow >>> 16;
  const lowest = a0 * b0;
  const middle = a1 * b0 + (lowest >>> 16);
  const other = a0 * b1 + (middle & 0xffff);
  const carry = a1 * b1 + Math.floor(middle / 65536) + Math.floor(other / 65536);
  return [
    (carry + Math.imul(aHigh, bLow) + Math.imul(aLow, bHigh)) >>> 0,
    (((other & 0xffff) << 16) | (lowest & 0xffff)) >>> 0,
  ];
}

function add([aHigh, aLow], [bHigh, bLow]) {
  const low = aLow + bLow;
  return [(aHigh + bHigh + (low > 0xffffffff ? 1 : 0)) >>> 0, low >>> 0];
}

/** z ^ (z >> n), for n below 32. */
function xorShifted([high, low], n) {
  return [(high ^ (high >>> n)) >>> 0, (low ^ ((low >>> n) | (high << (32 - n)))) >>> 0];
}

/** The output function of SplitMix64 (Steele, Lea and Flood 2014). */
function mix(z) {
  z = multiply(xorShifted(z, 30), [0xbf58476d, 0x1ce4e5b9]);
  z = multiply(xorShifted(z, 27), [0x94d049bb, 0x133111eb]);
  return xorShifted(z, 31);
}

/** The random numbers of one sample. */
class Stream {
  constructor(key, index) {
    this.state = mix(add(key, mix([Math.floor(index / 2 ** 32), index >>> 0])));
  }
  /** 64 random bits, as 2 words. */
  bits() {
    this.state = add(this.state, [0x9e3779b9, 0x7f4a7c15]);
    return mix(this.state);
  }
  /** Uniform over [0, 1) in steps of 2^-53. */
  unit() {
    const [high, low] = this.bits();
    return (high * 2 ** 21 + (low >>> 11)) * 2 ** -53;
  }
}

// ------------------------------------------------------------------------------------------------- the tables

/** The tables of a text, as laws read them. `data` is what `segmentation_page.py` writes. */
function readTables(data) {
  const kept = new Set(data.kept);
  const arcsFrom = Array.from({ length: data.starts.at(-1) + 1 }, () => []); // by byte: [end, id]
  for (const [start, end, id] of data.arcs) arcsFrom[start].push([end, id]);
  const tables = { data, kept, arcsFrom, splits: new Map(), walks: new Map() };
  tables.tokens = data.ids.map((id, i) => latticeOf(id, data.starts[i], data.starts[i + 1], arcsFrom, kept));
  tables.words = data.words.slice(0, -1).map((first, i) => {
    const last = data.words[i + 1];
    return { index: i, first, last, start: data.starts[first], end: data.starts[last] };
  });
  tables.arcsOf = tables.words.map(() => []); // by word
  let word = 0;
  for (const arc of data.arcs) {
    while (arc[0] >= tables.words[word].end) word++;
    tables.arcsOf[word].push(arc);
  }
  tables.merges = new Map(data.merges.map(([left, right, rank, merged]) => [`${left},${right}`, { rank, merged }]));
  tables.matchesFrom = Array.from(arcsFrom, () => []);
  for (const [start, end, id] of data.matches) tables.matchesFrom[start].push([end, id]);
  return tables;
}

/**
 * The lattice of one token: its edges, and the ways to cover the bytes from a position to its end.
 *
 * ways[i][k] counts those with k parts, total[i] all of them; positions count from the first byte of the token.
 */
function latticeOf(id, start, end, arcsFrom, kept) {
  const n = end - start;
  const edges = Array.from({ length: n }, (_, i) =>
    kept.has(id)
      ? i === 0 ? [[n, id]] : []
      : arcsFrom[start + i].filter(([to]) => to <= end).map(([to, piece]) => [to - start, piece]));
  const ways = Array.from({ length: n + 1 }, () => new Array(n + 1).fill(0));
  const total = new Array(n + 1).fill(0);
  ways[n][0] = total[n] = 1;
  for (let i = n - 1; i >= 0; i--) {
    for (const [to] of edges[i]) {
      for (let k = 1; k <= n - i; k++) ways[i][k] += ways[to][k - 1];
      total[i] += total[to];
    }
  }
  const maxSplits = ways[0].reduce((most, count, k) => (k > 0 && count > 0 ? k - 1 : most), 0);
  return { id, start, end, edges, ways, total, maxSplits };
}

/** The tokens of a text as parts. */
const canonical = (tables) => tables.tokens.map(({ start, end, id }) => [start, end, id]);

/** The pairs of tokens whose bytes are those of a part, in the order of `split_table`. */
function pairSplits(tables, [start, end, id]) {
  if (tables.kept.has(id)) return [];
  const key = `${start},${end}`;
  if (!tables.splits.has(key)) {
    const pairs = [];
    for (let middle = start + 1; middle < end; middle++) {
      const heads = tables.arcsFrom[start].filter(([to]) => to === middle);
      const tails = heads.length ? tables.arcsFrom[middle].filter(([to]) => to === end) : [];
      for (const [, head] of heads) {
        for (const [, tail] of tails) pairs.push([[start, middle, head], [middle, end, tail]]);
      }
    }
    tables.splits.set(key, pairs);
  }
  return tables.splits.get(key);
}

/** The index that `threshold`, from 0 to the sum of the weights, falls on. */
function indexAt(weights, threshold) {
  let chosen = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] > 0) {
      chosen = i;
      threshold -= weights[i];
      if (threshold < 0) break;
    }
  }
  return chosen;
}

/** A segmentation of a token, uniform over those with `size` parts. */
function drawOfSize(token, size, random) {
  const parts = [];
  let i = 0;
  for (let k = size; k > 0; k--) {
    const threshold = random.unit() * token.ways[i][k];
    const [to, id] = token.edges[i][indexAt(token.edges[i].map(([j]) => token.ways[j][k - 1]), threshold)];
    parts.push([token.start + i, token.start + to, id]);
    i = to;
  }
  return parts;
}

// --------------------------------------------------------------------------------------------- pair splits

/** Attempts in the text, or splits: floor(n p). */
const budget = (tables, p) => Math.floor(tables.tokens.length * p);

/** Attempts to split a random token into a random pair (StochasTok, Algorithm 2); in the order of their making. */
function splitRandomly(tables, p, random) {
  const parts = canonical(tables), n = parts.length, limit = tables.data.max_splits ?? Infinity;
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
    return all && all.map((parts) => {
      const counts = tokens.map((token) => partsOf(parts, token).length);
      const ways = tokens.reduce((product, token, i) => product * token.ways[0][counts[i]], 1);
      return [parts, (sizes.get(counts.join()) ?? 0) / ways];
    }).filter(([, probability]) => probability > 0);
  },
};

/** The parts within the bytes of a token or word. */
const partsOf = (parts, { start, end }) => parts.filter(([from, to]) => from >= start && to <= end);

/** The law of all splits of the text, as [parts, probability]; null where there are too many segmentations. */
function splitLaw(tables, p) {
  const n = tables.tokens.length, limit = tables.data.max_splits ?? Infinity;
  const most = tables.tokens.reduce((product, token) => product * token.total[0], 1);
  if (most > MOST_SEGMENTATIONS || most * budget(tables, p) > MOST_STEPS) return null;
  let states = new Map([["", [canonical(tables), 1]]]);
  for (let attempt = budget(tables, p); attempt > 0; attempt--) {
    const next = new Map();
    const put = (parts, weight) => {
      const key = keyOf(parts), known = next.get(key);
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
    const same = next.size === states.size && [...next].every(([key, [, w]]) => Math.abs(w - states.get(key)?.[1]) < 1e-15);
    states = next;
    if (same) break; // nothing is left to split
  }
  return [...states.values()];
}

// --------------------------------------------------------------------------------- walks over a token's lattice

/** Each token is, with probability p, replaced by a segmentation: one that `walk` draws, or of the list `best`. */
const walkMethod = {
  draw(tables, method, p, random) {
    return tables.tokens.flatMap((token, t) => {
      const walk = walkOf(tables, method, t);
      const whole = [[token.start, token.end, token.id]];
      if (walk.ways <= 1 || random.unit() >= p) return whole;
      if (walk.best) {
        const threshold = random.unit() * walk.cumulative.at(-1);
        return walk.best[walk.cumulative.findIndex((sum) => sum > threshold)].parts;
      }
      const parts = [];
      for (let i = 0; i < token.edges.length; ) {
        const [to, id] = token.edges[i][indexAt(walk.weights[i], random.unit() * walk.sums[i])];
        parts.push([token.start + i, token.start + to, id]);
        i = to;
      }
      return parts;
    });
  },
  law(tables, method, p, word) {
    const laws = [];
    for (let t = word.first; t < word.last; t++) {
      const token = tables.tokens[t], walk = walkOf(tables, method, t);
      const whole = [[token.start, token.end, token.id]];
      if (walk.ways <= 1) {
        laws.push([[whole, 1]]);
        continue;
      }
      walk.law ??= replacementLaw(token, walk);
      if (!walk.law) return null;
      const law = walk.law.map(([parts, q]) => [parts, q * p]);
      const same = law.find(([parts]) => keyOf(parts) === keyOf(whole));
      if (same) same[1] += 1 - p;
      else law.push([whole, 1 - p]);
      laws.push(law.filter(([, q]) => q > 0));
    }
    return productOf(laws);
  },
  /** The expected number of tokens at p. */
  expected(tables, method, p) {
    return tables.tokens.reduce((sum, token, t) => {
      const walk = walkOf(tables, method, t);
      return sum + (walk.ways <= 1 ? 1 : 1 - p + p * walk.expected);
    }, 0);
  },
};

/** The law of what replaces a token, as [parts, probability]; null if there are too many segmentations. */
function replacementLaw(token, walk) {
  if (walk.best) {
    const sum = walk.cumulative.at(-1);
    return walk.best.map(({ parts }, i) => [parts, (walk.cumulative[i] - (walk.cumulative[i - 1] ?? 0)) / sum]);
  }
  const all = allSegmentations([token]);
  return all && all.map((parts) => [parts, parts.reduce((product, [start, end, id]) => {
    const i = start - token.start;
    const e = token.edges[i].findIndex(([to, piece]) => to === end - token.start && piece === id);
    return product * walk.weights[i][e] / walk.sums[i];
  }, 1)]).filter(([, q]) => q > 0);
}

/** The transition weights of a method in a token (`path_counting_weights`, `score_weights`), or its best segmentations. */
function walkOf(tables, method, t) {
  const key = `${method.name}/${t}`;
  if (!tables.walks.has(key)) tables.walks.set(key, makeWalk(tables, method, tables.tokens[t]));
  return tables.walks.get(key);
}

function makeWalk(tables, method, token) {
  const n = token.edges.length;
  const weights = token.edges.map((edges) => edges.map(() => 0));
  const sums = new Array(n + 1).fill(0), ways = new Array(n + 1).fill(0), logSums = new Array(n + 1).fill(-Infinity);
  const score = (id) => tables.data.scores[id] ?? -Infinity;
  const { temperature, min_length: minLength, alpha, nbest } = method.values;
  ways[n] = 1;
  logSums[n] = 0;
  for (let i = n - 1; i >= 0; i--) {
    const lengths = token.edges[i].filter(([to]) => ways[to] > 0).map(([to]) => to - i);
    const least = Math.min(minLength ?? 1, Math.max(0, ...lengths));
    const logWeights = token.edges[i].map(([to, id]) => {
      if (ways[to] === 0 || to - i < least) return -Infinity;
      if (method.family === "uniform") return Math.log(ways[to]);
      if (method.family === "grampa") return Math.log(ways[to]) / temperature;
      return alpha * score(id) + logSums[to];
    });
    const best = Math.max(-Infinity, ...logWeights);
    if (best === -Infinity) continue;
    token.edges[i].forEach(([to], e) => {
      if (logWeights[e] === -Infinity) return;
      weights[i][e] = method.family === "uniform" ? ways[to] : Math.exp(logWeights[e] - best);
      sums[i] += weights[i][e];
      ways[i] += ways[to];
    });
    logSums[i] = best + Math.log(sums[i]);
  }
  const walk = { weights, sums, ways: ways[0] };
  if (method.family === "unigram" && nbest > 0 && ways[0] > 1) {
    walk.best = bestSegmentations(token, score, nbest);
    let sum = 0;
    walk.cumulative = walk.best.map((path) => (sum += Math.exp(alpha * (path.score - walk.best[0].score))));
    walk.expected = walk.best.reduce((mean, { parts, score: own }) =>
      mean + parts.length * Math.exp(alpha * (own - walk.best[0].score)) / sum, 0);
    return walk;
  }
  const expected = new Array(n + 1).fill(0); // parts from a position to the end
  for (let i = n - 1; i >= 0; i--) {
    token.edges[i].forEach(([to], e) => {
      if (weights[i][e] > 0) expected[i] += weights[i][e] / sums[i] * (1 + expected[to]);
    });
  }
  walk.expected = expected[0];
  return walk;
}

/** The `most` segmentations of a token with the best sums of scores; of equals, first that whose next piece is longer. */
function bestSegmentations(token, score, most) {
  const n = token.edges.length;
  const best = Array.from({ length: n + 1 }, () => []);
  best[n] = [{ score: 0, parts: [] }];
  for (let i = n - 1; i >= 0; i--) {
    const paths = [...token.edges[i]].reverse().flatMap(([to, id]) => best[to].map((rest) => ({
      score: score(id) + rest.score,
      parts: [[token.start + i, token.start + to, id], ...rest.parts],
    })));
    best[i] = paths.filter((path) => path.score > -Infinity).sort((a, b) => b.score - a.score).slice(0, most);
  }
  return best[0];
}

// ------------------------------------------------------------------------------------------------ uniform-k

/** Exactly floor(n p) splits, uniform over all refinements; the draws are explained in `kernels/uniform_k.py`. */
const uniformK = {
  draw(tables, method, p, random) {
    const { splits, members, head, tails } = splitCounts(tables, p);
    if (splits === 0) return canonical(tables);
    const chosen = new Map(); // by token, its number of splits
    const best = Math.max(...tails[0]);
    let remaining;
    for (;;) {
      remaining = splits;
      for (const { token, law } of members.slice(0, head)) {
        const u = random.unit(), k = law.findIndex((sum) => u < sum);
        chosen.set(token, k);
        remaining -= k;
        if (remaining < 0) break;
      }
      if (remaining >= 0 && remaining < tails[0].length && random.unit() * best < tails[0][remaining]) break;
    }
    members.slice(head).forEach(({ token, weights }, j) => {
      const options = weights.slice(0, remaining + 1).map((weight, k) => weight * (tails[j + 1][remaining - k] ?? 0));
      const k = indexAt(options, random.unit() * tails[j][remaining]);
      chosen.set(token, k);
      remaining -= k;
    });
    return tables.tokens.flatMap((token) =>
      chosen.get(token) > 0 ? drawOfSize(token, chosen.get(token) + 1, random) : [[token.start, token.end, token.id]]);
  },
  law(tables, method, p, word) {
    // All refinements of the text are equally likely: a segmentation of a word counts what is left for the others.
    const { splits, members, z } = splitCounts(tables, p);
    const tokens = tables.tokens.slice(word.first, word.last);
    const all = allSegmentations(tokens);
    if (!all || splits === 0) return all && [[tokens.map(({ start, end, id }) => [start, end, id]), 1]];
    const others = convolve(members.filter(({ token }) => !tokens.includes(token)).map(({ weights }) => weights), splits)[0];
    const list = all.map((parts) => {
      const made = parts.length - tokens.length;
      return [parts, (others[splits - made] ?? 0) * z ** made];
    });
    const sum = list.reduce((total, [, weight]) => total + weight, 0);
    return list.map(([parts, weight]) => [parts, weight / sum]).filter(([, q]) => q > 0);
  },
  expected: (tables, method, p) => tables.tokens.length + splitCounts(tables, p).splits,
};

/**
 * The splits of the text, and for each token that can be split (`members`) the law that their numbers are drawn from.
 *
 * k splits of a token weigh as many as its segmentations with k splits times z^k. The last m members are drawn given
 * the splits of the `head` members before them, backwards through `tails`.
 */
function splitCounts(tables, p) {
  const wanted = Math.min(budget(tables, p), tables.data.max_splits ?? Infinity);
  if (tables.splitCounts?.wanted === wanted) return tables.splitCounts;
  const splits = mostSplits(tables.tokens, wanted);
  const types = new Map(); // by id
  for (const token of tables.tokens) {
    if (token.maxSplits === 0) continue;
    if (!types.has(token.id)) types.set(token.id, { ways: token.ways[0].slice(1, token.maxSplits + 2), count: 0 });
    types.get(token.id).count++;
  }
  const z = splits > 0 ? fitZ([...types.values()], splits) : 1;
  for (const type of types.values()) {
    let sum = 0;
    const sums = type.ways.map((ways, k) => (sum += ways * z ** (z <= 1 ? k : k - type.ways.length + 1)));
    type.law = sums.map((value, k) => (k === sums.length - 1 ? 1 : value / sum));
    type.weights = type.law.map((value, k) => (k > 0 ? value - type.law[k - 1] : value));
  }
  const members = tables.tokens.filter((token) => types.has(token.id)).map((token) => ({ token, ...types.get(token.id) }));
  const head = members.length - Math.min(members.length, 8 + Math.floor(0.5 * members.length ** 0.6));
  const tails = convolve(members.slice(head).map(({ weights }) => weights), splits);
  tables.splitCounts = { wanted, splits, z, members, head, tails };
  return tables.splitCounts;
}

/** The z at which the expected number of splits is right to a third of a standard deviation: Newton's method on log z. */
function fitZ(types, splits) {
  const pairs = types.reduce((sum, { ways, count }) => sum + count * ways[1], 0);
  let x = pairs > 0 ? Math.log(splits / pairs) : 0, z = 1;
  let low = -60, high = 700 / Math.max(12, ...types.map(({ ways }) => ways.length - 1));
  for (let round = 0; round < 60; round++) {
    z = Math.exp(x);
    let expected = 0, variance = 0;
    for (const { ways, count } of types) {
      let weight = 0, mean = 0, square = 0;
      ways.forEach((number, k) => {
        const w = number * z ** (z <= 1 ? k : k - ways.length + 1);
        weight += w;
        mean += w * k;
        square += w * k * k;
      });
      mean /= weight;
      expected += count * mean;
      variance += count * (square / weight - mean * mean);
    }
    if (Math.abs(expected - splits) <= 0.3 * Math.sqrt(variance)) break;
    if (expected < splits) low = x;
    else high = x;
    const step = variance > 0 ? x + (splits - expected) / variance : high + 1;
    x = step > low && step < high ? step : 0.5 * (low + high);
  }
  return z;
}

/** tails[j][r]: the probability that the j-th and all further numbers of splits have the sum r, up to `most`. */
function convolve(laws, most) {
  const tails = new Array(laws.length + 1);
  tails[laws.length] = [1];
  for (let j = laws.length - 1; j >= 0; j--) {
    const below = tails[j + 1];
    const row = new Array(Math.min(below.length + laws[j].length - 1, most + 1)).fill(0);
    laws[j].forEach((weight, k) => {
      if (weight > 0) for (let r = 0; r < below.length && r + k < row.length; r++) row[r + k] += weight * below[r];
    });
    tails[j] = row;
  }
  return tails;
}

/** The largest number of splits up to `wanted` that the tokens can have together. */
function mostSplits(tokens, wanted) {
  let possible = new Set([0]);
  for (const token of tokens) {
    if (token.maxSplits === 0) continue;
    const next = new Set();
    for (const sum of possible) {
      for (let k = 0; k <= token.maxSplits && sum + k <= wanted; k++) if (token.ways[0][k + 1] > 0) next.add(sum + k);
    }
    possible = next;
  }
  return Math.max(...possible);
}

// ------------------------------------------------------------------------------------- encoding pretokens anew

/** BPE-dropout (Provilkov et al. 2020, Algorithm 1), in each pretoken. */
const bpeDropout = {
  draw(tables, method, p, random) {
    return tables.data.segments.flatMap(([start, end, id]) => {
      if (id >= 0) return [[start, end, id]];
      let parts = singleBytes(tables, start, end);
      for (;;) {
        const merge = applicableMerges(tables, parts).find(() => random.unit() >= p);
        if (!merge) return parts;
        parts = merged(parts, merge);
      }
    });
  },
  law(tables, method, p, word) {
    const laws = tables.data.segments.filter(([start, end]) => start >= word.start && end <= word.end)
      .map(([start, end, id]) => (id >= 0 ? [[[[start, end, id]], 1]] : mergeLaw(tables, start, end, p)));
    return productOf(laws);
  },
};

const singleBytes = (tables, start, end) =>
  Array.from({ length: end - start }, (_, i) => [start + i, start + i + 1, tables.data.byte_ids[start + i]]);

/** The merges of neighbouring parts, the best-ranked first, the leftmost of equals. */
function applicableMerges(tables, parts) {
  const merges = [];
  for (let i = 0; i + 1 < parts.length; i++) {
    const merge = tables.merges.get(`${parts[i][2]},${parts[i + 1][2]}`);
    if (merge) merges.push({ i, ...merge });
  }
  return merges.sort((a, b) => a.rank - b.rank || a.i - b.i);
}

const merged = (parts, { i, merged: id }) =>
  [...parts.slice(0, i), [parts[i][0], parts[i + 1][1], id], ...parts.slice(i + 2)];

/** The law of one pretoken: a merge leaves one part less, so all states with the same number of parts come together. */
function mergeLaw(tables, start, end, p) {
  const law = [];
  let states = new Map([["", [singleBytes(tables, start, end), 1]]]);
  let seen = 0;
  while (states.size > 0) {
    const next = new Map();
    for (const [parts, weight] of states.values()) {
      if (++seen > MOST_SEGMENTATIONS) return null;
      let left = weight;
      for (const merge of applicableMerges(tables, parts)) {
        const result = merged(parts, merge), key = keyOf(result), known = next.get(key);
        if (left * (1 - p) > 0) {
          if (known) known[1] += left * (1 - p);
          else next.set(key, [result, left * (1 - p)]);
        }
        left *= p;
      }
      if (left > 0) law.push([parts, left]);
    }
    states = next;
  }
  return law;
}

/** MaxMatch-dropout (Hiraoka 2022): the longest match from the left, each dropped with probability p but the shortest. */
const maxmatchDropout = {
  draw(tables, method, p, random) {
    return tables.data.segments.flatMap(([start, end, id]) => {
      if (id >= 0) return [[start, end, id]];
      const matches = matchesIn(tables, start, end), parts = [];
      for (let i = start; i < end; i = parts.at(-1)[1]) {
        let chosen = matches[i - start].length - 1;
        while (chosen > 0 && random.unit() < p) chosen--;
        parts.push([i, ...matches[i - start][chosen]]);
      }
      return parts;
    });
  },
  law(tables, method, p, word) {
    const laws = tables.data.segments.filter(([start, end]) => start >= word.start && end <= word.end)
      .map(([start, end, id]) => {
        if (id >= 0) return [[[[start, end, id]], 1]];
        const matches = matchesIn(tables, start, end);
        const behind = new Array(end - start + 1); // by position, the law of the rest of the word
        behind[end - start] = [[[], 1]];
        for (let i = end - 1; i >= start; i--) {
          let left = 1;
          behind[i - start] = [...matches[i - start]].reverse().flatMap(([to, piece], k, list) => {
            const weight = k === list.length - 1 ? left : left * (1 - p);
            left *= p;
            return weight > 0 ? behind[to - start].map(([parts, q]) => [[[i, to, piece], ...parts], q * weight]) : [];
          });
          if (behind[i - start].length > MOST_SEGMENTATIONS) return null;
        }
        return behind[0];
      });
    return productOf(laws);
  },
};

/** The entries that match at each byte of a word and behind which it can be completed, the longest last. */
function matchesIn(tables, start, end) {
  const matches = Array.from({ length: end - start }, () => []);
  for (let i = end - 1; i >= start; i--) {
    matches[i - start] = tables.matchesFrom[i].filter(([to]) => to === end || (to < end && matches[to - start].length > 0));
  }
  return matches;
}

// ------------------------------------------------------------------------------- samples that Python has drawn

/** A fixed rule, or a method without a law in this page: the results of the package, embedded. */
const embedded = {
  draw(tables, method, p, random, index) {
    const samples = samplesAt(method, p);
    return withSpans(tables, samples[index % samples.length]);
  },
  law(tables, method, p, word) {
    if (method.takes_p) return null;
    const parts = withSpans(tables, method.samples[0][0]);
    const own = partsOf(parts, word);
    return own.length && own[0][0] === word.start && own.at(-1)[1] === word.end ? [[own, 1]] : null;
  },
};

/** The embedded samples at the p of the grid that is nearest. */
function samplesAt(method, p) {
  if (!method.takes_p) return method.samples[0];
  const distances = method.grid.map((value) => Math.abs(value - p));
  return method.samples[distances.indexOf(Math.min(...distances))];
}

/** Ids as parts of the text. */
function withSpans(tables, ids) {
  let end = 0;
  return ids.map((id) => [end, (end += tables.data.widths[id]), id]);
}

// ------------------------------------------------------------------------------------------------ common parts

/** The most segmentations for which an exact law is computed. */
const MOST_SEGMENTATIONS = 3000;

/** The most segmentations times attempted splits for which the law of a text is computed. */
const MOST_STEPS = 30000;

const keyOf = (parts) => parts.map((part) => `${part[1]}:${part[2]}`).join();

/** All segmentations of neighbouring tokens, each by its own parts; null if there are too many. */
function allSegmentations(tokens) {
  if (tokens.reduce((product, token) => product * token.total[0], 1) > MOST_SEGMENTATIONS) return null;
  const from = (token, i) => (i === token.edges.length ? [[]] : token.edges[i].flatMap(([to, id]) =>
    token.total[to] > 0 ? from(token, to).map((rest) => [[token.start + i, token.start + to, id], ...rest]) : []));
  return tokens.map((token) => (token.segmentations ??= from(token, 0)))
    .reduce((before, some) => before.flatMap((parts) => some.map((more) => [...parts, ...more])), [[]]);
}

/** The law of independent neighbours; null if one is not known or there are too many segmentations. */
function productOf(laws) {
  if (laws.some((law) => law === null)) return null;
  if (laws.reduce((product, law) => product * law.length, 1) > MOST_SEGMENTATIONS) return null;
  return laws.reduce(
    (before, law) => before.flatMap(([parts, p]) => law.map(([more, q]) => [[...parts, ...more], p * q])), [[[], 1]]);
}

/** A list of [parts, probability] in which no segmentation occurs twice. */
function gather(list) {
  const byKey = new Map();
  for (const [parts, weight] of list) {
    const key = keyOf(parts), known = byKey.get(key);
    if (known) known[1] += weight;
    else if (weight > 0) byKey.set(key, [parts, weight]);
  }
  return [...byKey.values()];
}

const LAWS = {
  stochastok,
  "stochastok-uni": stochastokUni,
  uniform: walkMethod,
  "uniform-k": uniformK,
  grampa: walkMethod,
  unigram: walkMethod,
  "bpe-dropout": bpeDropout,
  "maxmatch-dropout": maxmatchDropout,
};

const lawOf = (method) => (method.samples ? embedded : LAWS[method.family]);

/** Sample `index` of the text by a method. */
function drawSample(tables, method, p, seed, index) {
  if (method.takes_p && p === 0 && method.identity_at_zero) return canonical(tables);
  const key = `${seed}/expand/${method.name}`;
  if (tables.key?.name !== key) tables.key = { name: key, words: deriveKey(seed, `expand/${method.name}`) };
  return lawOf(method).draw(tables, method, p, new Stream(tables.key.words, index), index);
}

/** The order of [parts, probability]: of equal probabilities, but for rounding, the one with fewer parts comes first. */
const likeliestFirst = (a, b) => b[1].toPrecision(9) - a[1].toPrecision(9) || a[0].length - b[0].length;

/** The law of the segmentation of a word, as [parts, probability], the most likely first; null where it is unknown. */
function exactLaw(tables, method, p, word) {
  if (method.takes_p && p === 0 && method.identity_at_zero) return [[partsOf(canonical(tables), word), 1]];
  const law = lawOf(method).law(tables, method, p, word);
  return law && law.sort(likeliestFirst);
}
