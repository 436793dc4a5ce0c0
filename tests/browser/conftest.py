"The built site, a server on the loopback address, and a headless Chromium to open it with."
import functools
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent.parent
site_folder = root/'_docs'
sys.path.insert(0, str(root))


def stale():
    "Whether the site is missing or older than what it is made of"
    home = site_folder/'index.html'
    sources = [o for folder in ('nbs', 'tools', 'fastloop') for o in (root/folder).rglob('*.*')
               if o.suffix in ('.ipynb', '.py', '.css', '.yml', '.svg')]
    return not home.exists() or any(o.stat().st_mtime > home.stat().st_mtime for o in sources)


def chromium():
    "The Chromium to use, or None"
    names = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
    return os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope='session')
def site():
    "The folder of the built site"
    if stale():
        built = subprocess.run([sys.executable, root/'tools'/'docs.py'], cwd=root, text=True,
                               capture_output=True)
        assert built.returncode == 0, built.stdout + built.stderr
    return site_folder


class QuietHandler(SimpleHTTPRequestHandler):
    "Serves files and says nothing"

    def log_message(self, *args):
        pass


@pytest.fixture(scope='session')
def base(site):
    "The address of the site"
    handler = functools.partial(QuietHandler, directory=site)
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture(scope='session')
def browser():
    "A headless Chromium"
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: '
                              'make test-docs installs it')
    if chromium() is None:
        pytest.skip('no Chromium on this machine: install it, or set CHROMIUM to its path')
    options = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking']
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield found
        found.close()
