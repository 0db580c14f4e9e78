// Who owns which queue, from the masks of the state. Numbers are those of `fakesys/ap/state`.

export const KINDS = [
  { name: "none", letter: "", words: "no such queue" },
  { name: "unbound", letter: "-", words: "no driver", colour: "#c9ccd1" },
  { name: "host", letter: "H", words: "driver of the host", colour: "#9ec5fe" },
  { name: "free", letter: "V", words: "vfio_ap, free", colour: "#ffe08a" },
  { name: "mdev", letter: "M", words: "assigned to a mediated device", colour: "#f7b58b" },
  { name: "guest", letter: "G", words: "in use by a guest", colour: "#8fd6a4" },
  { name: "off", letter: "D", words: "deconfigured", colour: "#dcc3f2" },
  { name: "stop", letter: "X", words: "checkstopped", colour: "#f4a3ab" },
];
const [, UNBOUND, HOST, FREE, MDEV, GUEST, OFF, STOP] = KINDS.keys();
const NUMBERS = 256;

export const hex2 = (number) => number.toString(16).padStart(2, "0");
export const hex4 = (number) => number.toString(16).padStart(4, "0");

// Bit 0 is the leftmost one.
export function bits(mask) {
  const found = new Uint8Array(NUMBERS);
  const digits = (mask ?? "").replace(/^0x/, "");
  for (let place = 0; place < digits.length; place++) {
    const digit = parseInt(digits[place], 16);
    for (let bit = 0; bit < 4; bit++) found[place * 4 + bit] = (digit >> (3 - bit)) & 1;
  }
  return found;
}

// [4, 5, 6, 71] -> "04-06, 47"
export function ranges(numbers) {
  const parts = [];
  for (let start = 0; start < numbers.length; ) {
    let end = start;
    while (numbers[end + 1] === numbers[end] + 1) end++;
    parts.push(start === end ? hex2(numbers[start]) : `${hex2(numbers[start])}-${hex2(numbers[end])}`);
    start = end + 1;
  }
  return parts.join(", ");
}

const below = (values, prefix) =>
  [...values].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key.slice(prefix.length), value])
    .sort(([one], [other]) => (one < other ? -1 : 1));

export function owners(values) {
  const cards = below(values, "ap/card/").map(([apid, card]) => ({ id: parseInt(apid, 16), apid, ...card }));
  const mdevs = below(values, "ap/mdev/").map(([uuid, mdev]) => ({
    uuid, guest: mdev.guest, matrix: mdev.matrix, shared: mdev.guest_masks,
    adapters: bits(mdev.matrix[0]), domains: bits(mdev.matrix[1]),
    hasAdapters: bits(mdev.guest_masks[0]), hasDomains: bits(mdev.guest_masks[1]),
  }));
  const drivers = values.get("ap/drivers") ?? {};
  const masks = values.get("ap/masks") ?? {};
  const used = new Uint8Array(NUMBERS), counts = KINDS.map(() => 0);
  const kinds = cards.map((card) => ofCard(card, drivers, mdevs, used, counts));
  return {
    cards, mdevs, kinds, counts,
    guests: below(values, "ap/guest/"),
    domains: [...used.keys()].filter((domain) => used[domain]),
    apmask: bits(masks.apmask), aqmask: bits(masks.aqmask),
  };
}

function ofCard(card, drivers, mdevs, used, counts) {
  const queues = bits(card.queues), host = bits(drivers.cex4queue?.[card.apid]), free = bits(drivers.vfio_ap?.[card.apid]);
  const off = bits(card.deconfigured), stop = bits(card.checkstopped);
  const has = mdevs.filter((mdev) => mdev.adapters[card.id] || mdev.hasAdapters[card.id]);
  const found = new Uint8Array(NUMBERS);
  for (let domain = 0; domain < NUMBERS; domain++) {
    if (!queues[domain]) continue;
    used[domain] = 1;
    let kind = host[domain] ? HOST : free[domain] ? FREE : UNBOUND;
    for (const mdev of has) {
      if (mdev.adapters[card.id] && mdev.domains[domain] && kind !== GUEST) kind = MDEV;
      if (mdev.guest && mdev.hasAdapters[card.id] && mdev.hasDomains[domain]) kind = GUEST;
    }
    if (!card.config || off[domain]) kind = OFF;
    if (card.chkstop || stop[domain]) kind = STOP;
    found[domain] = kind;
    counts[kind]++;
  }
  return found;
}
