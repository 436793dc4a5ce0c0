"""The board in a real JupyterLab: buttons are pressed while the cell is busy."""
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from io import BytesIO

import pytest

pytest.importorskip('jupyterlab')

PREPARE = '''
import json, threading, time
from pathlib import Path
from fastloop.all import *
from fastloop.examples import fashion
before = threading.enumerate()

class Slow(Callback):
    "A batch takes a while, and is counted in a file"
    def __init__(self, file): self.file = file
    def after_batch(self):
        time.sleep(.01)
        if not self.run.in_train: return
        Path(self.file + '.new').write_text(str(self.run.n_iter))
        Path(self.file + '.new').replace(self.file)

def learner(file='batches'):
    data, model = fashion(2000, bs=20)
    return Learner(data, model, lr=.05, opt_func=SGD, metrics=accuracy, silent=True, cbs=Slow(file))

def report(learn, name='report', **more):
    o = learn.recorder
    Path(name).write_text(json.dumps(dict(
        interventions=o.interventions, lrs=o.lrs, rows=o.values, n=learn.run.n_iter,
        threads=[o.name for o in threading.enumerate() if o not in before],
        running=learn.running, **more)))
'''
# far more epochs than a slow page needs: every fit is ended by hand
FIT = '''learn = learner()
schedule = ParamScheduler('lr', sched_cos(.05, .01))
learn.fit(400, cbs=[DashboardCallback(), schedule])'''
REPORT = "report(learn, plan=schedule.values(400, 100)['lr'])"
TWO = '''one, two = learner('one'), learner('two')
thread = threading.Thread(target=one.fit, args=(400,), kwargs=dict(cbs=DashboardCallback()))
thread.start()
two.fit(400, cbs=DashboardCallback())
thread.join()'''
ERROR = '''learn = learner()
def fails(): raise RuntimeError('here')
try: learn.fit(2, cbs=[DashboardCallback(), LambdaCallback(begin_validate=fails)])
except RuntimeError as e: print(e)'''
INTERRUPT = '''learn = learner()
try: learn.fit(400, cbs=DashboardCallback())
except KeyboardInterrupt: print('interrupted')'''
PLAY = '''from fastloop.all import *
SchedulePlayground(epochs=3, iters=50, lr_max=.0037)'''
notebooks = {
    'play': [PLAY],
    'steer': [PREPARE, FIT, REPORT], 'two': [PREPARE, TWO, "report(one, 'report one')",
                                             "report(two)"],
    'error': [PREPARE, ERROR, 'report(learn)'], 'interrupt': [PREPARE, INTERRUPT, 'report(learn)']}


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def write_notebooks(folder):
    for name, cells in notebooks.items():
        found = [dict(cell_type='code', id=f'cell{i}', metadata={}, outputs=[],
                      execution_count=None, source=o.strip()) for i, o in enumerate(cells)]
        kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
        (folder/f'{name}.ipynb').write_text(json.dumps(dict(
            cells=found, metadata=kernel, nbformat=4, nbformat_minor=5)))


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "The address of a JupyterLab, and its folder"
    folder, home = tmp_path_factory.mktemp('lab'), tmp_path_factory.mktemp('home')
    write_notebooks(folder)
    port = free_port()
    address = f'http://127.0.0.1:{port}/'
    never = 'jupyterlab.handlers.announcements.NeverCheckForUpdate'
    command = [sys.executable, '-m', 'jupyter', 'lab', '--no-browser', '--ip', '127.0.0.1',
               '--port', str(port), '--allow-root', '--IdentityProvider.token=',
               '--ServerApp.disable_check_xsrf=True', f'--ServerApp.root_dir={folder}',
               f'--LabApp.check_for_updates_class={never}',
               '--LabApp.news_url=']
    env = {k: v for k, v in os.environ.items() if k != 'FASTLOOP_PROGRESS'}
    process = subprocess.Popen(command, cwd=folder, env={**env, 'HOME': str(home)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, 'jupyter lab has ended'
            try:
                urllib.request.urlopen(address + 'api/status', timeout=10).close()
                break
            except (urllib.error.URLError, ConnectionError): time.sleep(.2)
        yield address, folder
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()


class Notebook:
    "A notebook in the browser"

    def __init__(self, page, lab, name):
        self.page, (self.address, self.folder), self.name = page, lab, name
        dialog = page.locator('.jp-Dialog .jp-mod-accept')  # a slow page asks for the kernel
        page.add_locator_handler(dialog, lambda: dialog.click(), no_wait_after=True)
        self.begin_session()
        page.goto(f'{self.address}lab/tree/{name}.ipynb?reset')
        self.wait_for('idle')
        first = page.locator('.jp-CodeCell').first.locator('.jp-InputPrompt')
        for _ in range(6):  # where the page is not ready yet, the command or its first cell is lost
            self.menu('Run', 'runmenu:run-all')
            prompt = first.filter(has_text=re.compile(r'\[(\*|\d+)\]'))
            try: return prompt.wait_for(timeout=10_000, state='attached')
            except Exception: self.wait_for('idle')
        raise AssertionError('nothing runs')

    def begin_session(self):
        "Start the kernel before the page asks for it"
        path = f'{self.name}.ipynb'
        data = json.dumps(dict(path=path, name=path, type='notebook', kernel={'name': 'python3'}))
        asked = urllib.request.Request(self.address + 'api/sessions', data.encode(),
                                       {'Content-Type': 'application/json'})
        urllib.request.urlopen(asked, timeout=60).close()

    def menu(self, name, command):
        self.page.locator('.lm-MenuBar-itemLabel', has_text=name).first.click()
        self.page.locator(f'.lm-Menu-item[data-command="{command}"]').click()

    def wait_for(self, status, timeout=60_000):
        self.page.locator(f'.jp-Notebook-ExecutionIndicator[data-status={status}]').wait_for(
            timeout=timeout, state='attached')

    def press(self, words, nth=0):
        self.page.get_by_role('button', name=words, exact=True).nth(nth).click()

    def text(self, nth=0): return self.page.locator('.widget-html-content').nth(nth).inner_text()

    def until(self, holds, seconds=90):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f'waited in vain: {self.texts()}'
            self.page.wait_for_timeout(50)

    def texts(self): return self.page.locator('.jp-OutputArea-output').all_inner_texts()

    def batches(self): return int((self.folder/'batches').read_text())

    def picture(self, nth=0):
        "What the live board shows, as text"
        return self.page.evaluate('''async nth => {
            const src = document.querySelectorAll('img.widget-image, .widget-image img')[nth].src;
            return await (await fetch(src)).text()}''', nth)

    def shoot(self, what, name):
        "The pixels of a part of the page, and a file where SCREENSHOTS says"
        from matplotlib.image import imread
        data = what.screenshot()
        if folder := os.environ.get('SCREENSHOTS'):
            with open(f'{folder}/{name}.png', 'wb') as f: f.write(data)
        return imread(BytesIO(data))[..., :3]*255

    def report(self, name='report'):
        self.until((self.folder/name).exists)
        self.wait_for('idle')
        return json.loads((self.folder/name).read_text())


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={'width': 1500, 'height': 1400})
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    yield opened
    if folder := os.environ.get('SCREENSHOTS'): opened.screenshot(path=f'{folder}/end.png')
    context.close()


def count_color(pixels, color):
    "How many pixels have nearly this color"
    wanted = [int(color[i:i+2], 16) for i in (1, 3, 5)]
    return int((abs(pixels - wanted).max(-1) < 40).sum())


BLUE, ORANGE, GREEN = '#1f77b4', '#ff7f0e', '#2ca02c'


def ours(found):
    "Threads that are new, without the one in which the kernel hears what is pressed"
    return [o for o in found['threads'] if not o.startswith('subshell')]


def left_picture(page): return page.locator('.jp-OutputArea-output figure')


def test_watch_and_steer(page, lab):
    nb = Notebook(page, lab, 'steer')
    nb.until(lambda: page.locator('.widget-html-content').count() == 1)
    first = nb.picture()
    nb.until(lambda: nb.picture() != first)
    nb.wait_for('busy')
    nb.until(lambda: re.search(r'epoch (?!1 )\d+ of 400 .* batches a second .* left', nb.text()))
    board = page.locator('.jp-OutputArea-output .widget-vbox').first

    def drawn():
        live = nb.shoot(board, 'board')
        return count_color(live, BLUE) > 100 and count_color(live, ORANGE) > 20
    nb.until(drawn)

    nb.press('Pause')
    nb.until(lambda: nb.text().startswith('paused'))
    n = nb.batches()
    page.wait_for_timeout(2000)
    assert nb.batches() == n
    nb.press('Go on')
    nb.until(lambda: nb.batches() > n and not nb.text().startswith('paused'))

    rate = nb.picture().count('stroke-dasharray')
    nb.press('Multiply rate by')
    nb.until(lambda: 'rate × 0.5' in nb.text() and nb.picture().count('stroke-dasharray') > rate)
    page.locator('.widget-text input').first.fill('0.25')
    page.locator('.widget-text input').first.press('Enter')
    nb.press('Multiply rate by')
    nb.until(lambda: 'rate × 0.25' in nb.text())
    nb.press('Save')
    nb.until(lambda: 'save' in nb.text())
    nb.press('Stop')
    left_picture(page).wait_for()
    found = nb.report()

    assert [(what, value) for what, _, value in found['interventions']] == [
        ('pause', None), ('go_on', None), ('rate', .5), ('rate', .25), ('save', None),
        ('stop', None)]
    ats = [o[1] for o in found['interventions']]
    assert ats == sorted(ats) and ats[0] == ats[1] == n and ats[-1] == found['n'] < 40_000
    assert len(list((lab[1]/'models').glob('saved-batch*.pth'))) == 1
    factor = [(.5 if i >= ats[2] else 1)*(.25 if i >= ats[3] else 1) for i in range(found['n'])]
    assert found['lrs'] == pytest.approx([a*b for a, b in zip(found['plan'], factor)])
    assert found['rows'][-1][1] is not None and ours(found) == [] and not found['running']
    assert page.locator('.widget-button').count() == 0
    words = left_picture(page).inner_text().strip()
    assert words.startswith('done: training loss') and words.endswith(f'stop after batch {ats[-1]}')
    left = nb.shoot(left_picture(page), 'left')
    assert [count_color(left, o) > 50 for o in (BLUE, ORANGE, GREEN)] == [True]*3


def test_two_boards(page, lab):
    nb = Notebook(page, lab, 'two')
    nb.until(lambda: page.locator('.widget-html-content').count() == 2)
    nb.until(lambda: (lab[1]/'one').exists() and (lab[1]/'two').exists())
    nb.press('Stop', 0)
    left_picture(page).first.wait_for()
    nb.until(lambda: page.locator('.widget-html-content').count() == 1)
    nb.press('Multiply rate by')
    nb.until(lambda: 'rate × 0.5' in nb.text())
    nb.press('Stop after epoch')
    found = nb.report(), nb.report('report one')
    done = sorted([o[0] for o in r['interventions']] for r in found)
    assert done == [['rate', 'stop_epoch'], ['stop']] and left_picture(page).count() == 2
    assert all(ours(o) == [] for o in found)


@pytest.mark.parametrize('name, end', [('error', 'RuntimeError'),
                                       ('interrupt', 'KeyboardInterrupt')])
def test_ended_otherwise(page, lab, name, end):
    (lab[1]/'report').unlink(missing_ok=True)
    nb = Notebook(page, lab, name)
    if name == 'interrupt':
        nb.until(lambda: page.locator('.widget-html-content').count() == 1)
        nb.press('Pause')
        nb.until(lambda: nb.text().startswith('paused'))
        nb.menu('Kernel', 'kernelmenu:interrupt')
    left_picture(page).wait_for()
    found = nb.report()
    assert f'ended by {end}' in left_picture(page).inner_text()
    assert page.locator('.widget-button').count() == 0
    assert ours(found) == [] and not found['running']


def test_the_playground_moves(page, lab):
    "The numbers it was given, whole labels; a slider that is moved changes call and picture"
    found = Notebook(page, lab, 'play')
    found.until(lambda: page.locator('.widget-html-content').count() > 0)
    assert found.text() == 'learn.fit_one_cycle(3, max_lr=0.0037)'
    sliders = page.locator('.widget-slider')
    assert sliders.first.locator('.widget-readout').inner_text() == '0.0037'
    cut = page.eval_on_selector_all('.widget-label', """found => found.filter(
        o => o.scrollWidth > o.clientWidth).map(o => o.textContent)""")
    assert cut == []
    source = "document.querySelector('img.widget-image, .widget-image img').src"
    before = page.evaluate(source)
    sliders.nth(1).locator('.noUi-handle').focus()
    for _ in range(10): page.keyboard.press('ArrowRight')
    found.until(lambda: found.text() == 'learn.fit_one_cycle(3, max_lr=0.0037, pct_start=0.4)')
    found.until(lambda: page.evaluate(source) != before)
    pixels = found.shoot(page.locator('.widget-image').first, 'playground')
    assert count_color(pixels, BLUE) > 200 and count_color(pixels, ORANGE) > 200
