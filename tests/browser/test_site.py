"The built site in a headless Chromium: what a reader meets, not what the files say."
import re
from contextlib import contextmanager
from urllib.parse import urldefrag

import pytest

from tools.rooms import rooms

wide, phone = {'width': 1280, 'height': 900}, {'width': 390, 'height': 844}


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
    "What every page holds: name -> (trouble, ids, links, width on a phone)"
    found = {}
    for file in sorted(site.rglob('*.html')):
        name = file.relative_to(site).as_posix()
        with opened(browser, base + name) as (page, trouble):
            ids = page.eval_on_selector_all('[id]', 'all => all.map(o => o.id)')
            links = page.eval_on_selector_all('a[href]', 'all => all.map(o => o.href)')
            assert page.locator('h1').count() == 1, f'{name} has no title'
            page.set_viewport_size(phone)
            width = page.evaluate('document.documentElement.scrollWidth')
            found[name] = trouble, ids, links, width
    return found


def test_every_page_opens_without_trouble(pages):
    assert 'index.html' in pages and len(pages) == len(rooms()) + 1
    assert {name: o[0] for name, o in pages.items() if o[0]} == {}


def test_anchors_are_unique(pages):
    repeated = {name: {o for o in ids if ids.count(o) > 1} for name, (_, ids, *_) in pages.items()}
    assert {name: o for name, o in repeated.items() if o} == {}


def test_no_broken_link(pages, base):
    broken = []
    for name, (_, _, links, _) in pages.items():
        for link in links:
            address, anchor = urldefrag(link)
            if not address.startswith(base):
                continue
            target = address.removeprefix(base) or 'index.html'
            if target not in pages or anchor and anchor not in pages[target][1]:
                broken.append(f'{name}: {link.removeprefix(base)}')
    assert broken == []


def test_rooms_are_in_order(browser, base):
    with opened(browser, base + 'index.html') as (page, _):
        links = page.eval_on_selector_all('#quarto-sidebar a.sidebar-link[href$=".html"]',
                                          'all => all.map(o => o.getAttribute("href"))')
        text = page.locator('#quarto-sidebar').inner_text()
    names = [o.removeprefix('./') for o in links]
    assert names == ['index.html', *[o.page for o in rooms()]]
    places = [text.index(o.section) for o in rooms()]
    assert places == sorted(places)


def search(page, words):
    "Type into the search box; the links it offers"
    page.keyboard.press('/')
    page.keyboard.type(words)
    page.locator('.search-result').first.wait_for()
    return page.eval_on_selector_all('.search-result', 'all => all.map(o => o.href)')


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
    first = rooms()[0].page
    with opened(browser, base + 'index.html', phone) as (page, trouble):
        entry = page.locator(f'#quarto-sidebar a[href="{first}"]')
        assert not entry.evaluate('o => o.getBoundingClientRect().right > 0')
        page.locator('.quarto-btn-toggle').first.click()
        entry.click()
        page.wait_for_url('**/' + first)
        assert trouble == []
