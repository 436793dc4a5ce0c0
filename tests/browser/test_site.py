"The built site in a headless Chromium: what a reader meets, not what the files say."
import re
from contextlib import contextmanager
from urllib.parse import urldefrag

import pytest

from tools.docs import pages_in_order
from tools.docs_pages import pages as written
from tools.rooms import rooms

wide, phone = {'width': 1280, 'height': 900}, {'width': 390, 'height': 844}
# texts that are hard to read: how far their colour is from what lies behind them, as WCAG counts it
FAINT = """() => {
  const parse = (c) => [...c.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const bend = (v) => v/255 <= .03928 ? v/255/12.92 : ((v/255 + .055)/1.055)**2.4;
  const light = (c) => .2126*bend(c[0]) + .7152*bend(c[1]) + .0722*bend(c[2]);
  const over = (top, under) => [0, 1, 2].map((i) => top[i]*top[3] + under[i]*(1 - top[3]));
  const ground = (el) => {
    const layers = [];
    for (let o = el; o; o = o.parentElement) {
      const c = parse(getComputedStyle(o).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const found = {}, walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walk.nextNode());) {
    const el = n.parentElement;
    if (!n.textContent.trim() || !el.checkVisibility({ visibilityProperty: true })) continue;
    if (el.closest('svg, script, style')) continue;
    let alpha = 1;
    for (let o = el; o; o = o.parentElement) alpha *= Number(getComputedStyle(o).opacity);
    const g = ground(el), c = parse(getComputedStyle(el).color);
    const a = light(over([...c.slice(0, 3), c[3]*alpha], g)), b = light(g);
    const ratio = (Math.max(a, b) + .05)/(Math.min(a, b) + .05);
    if (ratio < 4.5) found[`${el.tagName}.${el.className}`] = ratio.toFixed(2);
  }
  return found;
}"""
MUTE = """() => [...document.querySelectorAll('main img, main svg')]
  .filter((o) => !o.getAttribute('alt') && !o.getAttribute('aria-label') && !o.closest('button, a'))
  .map((o) => o.outerHTML.slice(0, 80))"""


@contextmanager
def opened(browser, address, size=wide, **options):
    "A page and the list of what went wrong on it: console errors, failed or foreign requests"
    context = browser.new_context(viewport=size, **options)
    page, trouble = context.new_page(), []
    origin = re.match(r'\w+://[^/]*/', address)[0]

    def request(o):
        if not o.url.startswith((origin, 'data:', 'blob:')):
            trouble.append(f'asks another machine: {o.url}')

    def failed(o):
        if o.failure != 'net::ERR_ABORTED':  # the page was left before all had come
            trouble.append(f'failed: {o.url} {o.failure}')

    page.on('request', request)
    page.on('requestfailed', failed)
    page.on('pageerror', lambda o: trouble.append(f'script error: {o}'))
    page.on('console', lambda o: trouble.append(o.text) if o.type == 'error' else None)
    response = page.goto(address)
    assert response is None or response.status == 200, f'{address} answers {response.status}'
    try:
        yield page, trouble
    finally:
        context.close()


@pytest.fixture(scope='module')
def pages(browser, site, base):
    "What every page holds: name -> (trouble, ids, links, width on a phone, faint, pictures)"
    found = {}
    for file in sorted(site.rglob('*.html')):
        name = file.relative_to(site).as_posix()
        with opened(browser, base + name) as (page, trouble):
            ids = page.eval_on_selector_all('[id]', 'all => all.map(o => o.id)')
            links = page.eval_on_selector_all('a[href]', 'all => all.map(o => o.href)')
            assert page.locator('h1').count() == 1, f'{name} has no title'
            faint, mute = page.evaluate(FAINT), page.evaluate(MUTE)
            page.set_viewport_size(phone)
            width = page.evaluate('document.documentElement.scrollWidth')
            found[name] = trouble, ids, links, width, faint, mute
    return found


def test_every_page_opens_without_trouble(pages):
    assert 'index.html' in pages and len(pages) == len(rooms()) + 1 + len(written)
    assert {name: o[0] for name, o in pages.items() if o[0]} == {}


def test_anchors_are_unique(pages):
    repeated = {name: {o for o in ids if ids.count(o) > 1} for name, (_, ids, *_) in pages.items()}
    assert {name: o for name, o in repeated.items() if o} == {}


def test_no_broken_link(pages, base, site):
    broken = []
    for name, (_, _, links, *_) in pages.items():
        for link in links:
            address, anchor = urldefrag(link)
            if not address.startswith(base):
                continue
            target = address.removeprefix(base) or 'index.html'
            if target.startswith('notebooks/') and (site/target).is_file():
                continue
            if target not in pages or anchor and anchor not in pages[target][1]:
                broken.append(f'{name}: {link.removeprefix(base)}')
    assert broken == []


def test_text_is_easy_to_read(pages, browser, base):
    assert {name: o[4] for name, o in pages.items() if o[4]} == {}
    for name in ('index.html', 'runner.html', 'callbacks.html', 'learner.html'):
        with opened(browser, base + name, color_scheme='dark') as (page, _):
            page.wait_for_function("document.documentElement.classList.contains('quarto-dark')")
            assert page.evaluate(FAINT) == {}, f'{name}, dark'


def test_pictures_say_what_is_on_them(pages):
    assert {name: o[5] for name, o in pages.items() if o[5]} == {}


def test_pages_are_light(site):
    sizes = {o.name: o.stat().st_size for o in site.glob('*.html')}
    assert {name: o for name, o in sizes.items() if o > 1_500_000} == {}
    shared = [o for o in (site/'site_libs').rglob('*.*') if o.suffix in ('.js', '.css', '.woff2')]
    assert sum(o.stat().st_size for o in shared) < 1_500_000


def test_every_page_shows_where_it_stands(browser, base):
    for name in ('callback.logger.html', 'callbacks.html', 'what_next.html'):
        with opened(browser, base + name) as (page, _):
            here = page.locator('#quarto-sidebar [aria-current=page]')
            assert here.count() == 1 and here.is_visible()
            assert here.evaluate('o => o.getBoundingClientRect().bottom < innerHeight')
            assert re.search(r'fastloop \d+\.\d+\.\d+', page.locator('footer').inner_text())


def test_notebooks_can_be_fetched(browser, base):
    with opened(browser, base + 'callback.logger.html') as (page, _):
        line = page.locator('.room')
        assert re.search(r'Callbacks · \d+ minutes', line.inner_text())
        with page.expect_download() as loaded:
            line.get_by_text('download').click()
        assert loaded.value.suggested_filename == '42_callback.logger.ipynb'
        assert '"nbformat": 4' in loaded.value.path().read_text()
        links = line.locator('a').evaluate_all('all => all.map(o => o.href)')
        for part in ('/blob/main/nbs/', 'colab.research.google.com', '/edit/main/nbs/'):
            assert any(part in o and o.endswith('42_callback.logger.ipynb') for o in links), part
        assert page.locator('.nav-page-previous a, .nav-page-next a').count() == 2


def test_imports_are_folded(browser, base):
    with opened(browser, base + 'callback.logger.html') as (page, _):
        assert not [o for o in page.locator('details.code-fold pre').all() if o.is_visible()]
        folded = page.locator('details.code-fold').first
        folded.locator('summary').click()
        assert 'import' in folded.locator('pre').inner_text()


def test_wide_tables_scroll_on_a_phone(browser, base):
    with opened(browser, base + 'callbacks.html', phone) as (page, _):
        table = page.locator('main table').first
        assert table.evaluate('o => o.scrollWidth > o.clientWidth')
        assert 'gradient' in table.evaluate('o => getComputedStyle(o).backgroundImage')
        table.evaluate('o => { o.scrollLeft = 100; }')
        assert table.evaluate('o => o.scrollLeft') == 100


def test_a_wrong_address_is_helped(browser, base):
    with opened(browser, base + '404.html') as (page, trouble):
        assert 'no such page' in page.locator('h1').inner_text()
        page.locator('main a[href*="index"]').first.click()
        page.wait_for_url('**/index.html')
        assert trouble == []


def test_rooms_are_in_order(browser, base):
    with opened(browser, base + 'index.html') as (page, _):
        links = page.eval_on_selector_all('#quarto-sidebar a.sidebar-link[href$=".html"]',
                                          'all => all.map(o => o.getAttribute("href"))')
        text = page.locator('#quarto-sidebar').inner_text()
    names = [o.removeprefix('./') for o in links]
    assert names == list(pages_in_order())
    assert sorted(names) == sorted({'index.html', *[o.page for o in rooms()],
                                    *[o.replace('.md', '.html') for o in written]} - {'404.html'})
    parts = ['Home', 'Look it up', 'Coming from elsewhere', 'The loop', 'The learner', 'Callbacks',
             'Images', 'All together', 'Toolbox', 'What next']
    places = [text.index(o) for o in parts]
    assert places == sorted(places)


def search(page, words):
    "Put words into the search box; the links it offers"
    page.keyboard.press('/')
    # all at once: the list follows a reader who pauses, and a slow machine pauses after any letter
    page.keyboard.insert_text(words)
    page.locator('.search-result').first.wait_for()
    return page.eval_on_selector_all('.search-result', 'all => all.map(o => o.href)')


@pytest.mark.parametrize('words, page', [
    ('Learner', 'learner.html#learner'), ('fit_one_cycle', 'learner.html#learner.fit_one_cycle'),
    ('early stopping', 'callback.tracker.html#earlystoppingcallback'),
    ('save model', 'callback.save.html#savemodelcallback'),
    ('gradient accumulation', 'callback.training.html#gradientaccumulation'),
    ('get_preds', 'learner.html#learner.get_preds'), ('from_folder', 'from_folder'),
    ('confusion matrix', 'plot_confusion_matrix'), ('lr finder', 'lr_finder.html#lrfinder'),
    ('mixed precision', 'precision.html'), ('plot_losses', 'recorder.html#recorder.plot_losses'),
    ('coming from fastai', 'coming_from_fastai.html'), ('cheat sheet', 'cheat_sheet.html'),
    ('from_tensors', 'data.bunch.html#databunch.from_tensors'), ('tensorboard', 'tensorboard')])
def test_search_finds_at_once(browser, base, words, page):
    with opened(browser, base + 'index.html') as (opened_page, _):
        found = [o.removeprefix(base) for o in search(opened_page, words)[:3]]
    assert any(page in o for o in found), found


def test_search_finds_classes_before_their_methods(browser, base):
    with opened(browser, base + 'index.html') as (page, _):
        found = [o.partition('#')[2] for o in search(page, 'Recorder')]
    assert found[0] == 'recorder' and any(o.startswith('recorder.') for o in found[1:])


@pytest.mark.parametrize('name, target', [('Runner', 'runner.html#runner'),
                                          ('sched_cos', 'anneal.html#sched_cos')])
def test_search_finds(browser, base, name, target):
    with opened(browser, base + 'index.html') as (page, trouble):
        assert base + target in search(page, name)
        page.locator(f'.search-result[href$="{target}"]').first.click()
        page.wait_for_url('**/' + target)
        assert page.locator(f'[id="{target.split("#")[1]}"]').is_visible()
        assert trouble == []


def test_search_works_from_disk(browser, site):
    with opened(browser, (site/'index.html').as_uri()) as (page, trouble):
        assert any(o.endswith('runner.html#runner') for o in search(page, 'Runner'))
        assert trouble == []


def luminance(page):
    "How bright the page is, 0 to 255"
    color = page.evaluate('getComputedStyle(document.body).backgroundColor')
    return sum(int(o) for o in re.findall(r'\d+', color)[:3])/3


def test_dark_and_light(browser, base):
    with opened(browser, base + 'index.html', color_scheme='light') as (page, trouble):
        assert luminance(page) > 200
        page.locator('.quarto-color-scheme-toggle:visible').first.click()
        page.wait_for_function("document.documentElement.classList.contains('quarto-dark')")
        assert luminance(page) < 80
        page.reload()
        assert luminance(page) < 80, 'the choice is forgotten'
        page.locator('.quarto-color-scheme-toggle:visible').first.click()
        page.wait_for_function("!document.documentElement.classList.contains('quarto-dark')")
        assert luminance(page) > 200 and trouble == []
    with opened(browser, base + 'index.html', color_scheme='dark') as (page, _):
        assert luminance(page) < 80


def test_fits_a_phone(pages):
    assert {name: o[3] for name, o in pages.items() if o[3] > phone['width']} == {}


def test_phone_menu(browser, base):
    first = 'cheat_sheet.html'
    with opened(browser, base + 'index.html', phone) as (page, trouble):
        entry = page.locator(f'#quarto-sidebar a[href="{first}"]')
        assert not entry.evaluate('o => o.getBoundingClientRect().right > 0')
        page.locator('.quarto-btn-toggle').first.click()
        page.locator('#quarto-sidebar').get_by_text('Look it up').click()
        entry.click()
        page.wait_for_url('**/' + first)
        assert trouble == []
