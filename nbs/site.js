// What the pages of this site do themselves: the order of what a search finds, and the list of pages.

// a page opened from disk may not fetch the search index: load it as a script
if (location.protocol === 'file:') window.fetch = (url) => new Promise((done, failed) => {
  const script = document.createElement('script');
  script.src = String(url).replace(/\.json$/, '.js');
  script.onload = () => done({ json: () => window.searchEntries });
  script.onerror = failed;
  document.head.append(script);
});

// Names first: exactly what was typed, classes and functions before methods; then titles, headings, text.
(() => {
  const words = (text) => text.replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase().split(/[^a-z0-9]+/).filter(Boolean);
  const joined = (text) => words(text).join('');
  const kinds = { class: 30, function: 20, page: 25, method: 10 };

  const nameScore = (name, query, tokens) => {
    const whole = joined(name), own = words(name);
    if (whole === query) return 1000;
    if (whole.startsWith(query)) return 600 - Math.min(200, 4 * (whole.length - query.length));
    if (whole.includes(query)) return 400 - Math.min(150, 2 * (whole.length - query.length));
    if (tokens.every((o) => own.some((word) => word.startsWith(o)))) return 300 - Math.min(100, own.length);
    return 0;
  };

  const score = (entry, query, tokens) => {
    const name = entry.section || entry.title, kind = entry.kind || 'section';
    let found = nameScore(name, query, tokens);
    if (kind === 'method') found = Math.max(found, 0.9 * nameScore(name.split('.').pop(), query, tokens));
    if (kind === 'section') found *= 0.8;
    if (!found) {
      const text = `${entry.title} ${entry.section} ${entry.text}`.toLowerCase();
      if (!tokens.every((o) => text.includes(o))) return 0;
      found = text.includes(tokens.join(' ')) ? 100 : 50;
    }
    return found + (kinds[kind] || 0);
  };

  class Finder {
    constructor(entries) { this.entries = entries; }

    search(text, { limit = 20 } = {}) {
      const tokens = words(text), query = tokens.join('');
      if (!tokens.length) return [];
      return this.entries.map((item) => ({ item, score: score(item, query, tokens) })).filter((o) => o.score > 0)
        .sort((a, b) => b.score - a.score).slice(0, limit);
    }
  }
  window.Fuse = Finder;
})();

// the list of pages shows where the reader is
document.addEventListener('DOMContentLoaded', () => {
  const list = document.getElementById('quarto-sidebar');
  const here = list && list.querySelector('.sidebar-link.active');
  const below = here && here.getBoundingClientRect().bottom - list.getBoundingClientRect().top;
  if (below > 0.8 * list.clientHeight) list.scrollTop = below - list.clientHeight / 2;
});
