"README.md says what the notebooks say, briefly, and claims what was tested."
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
readme = import_module('tools.readme')
text = (root/'README.md').read_text(encoding='utf-8')
code = re.findall(r'^```python\n(.*?)^```$', text, flags=re.M | re.S)


def test_up_to_date():
    found = subprocess.run([sys.executable, root/'tools'/'readme.py', '--check'], text=True,
                           capture_output=True)
    assert found.returncode == 0, found.stderr


def test_short():
    before = text[:text.index('```python')]
    words = [o for o in before.split() if re.search(r'\w', o)]
    assert 40 <= len(words) <= 130, f'{len(words)} words before the code'
    assert len(code) == 1
    assert len([o for o in code[0].splitlines() if o.strip()]) <= 12


def test_shows_the_table_it_printed():
    after = text[text.index(code[0]) + len(code[0]):]
    table = re.match(r'```\n+```\n(.*?)\n```', after, flags=re.S)[1].splitlines()
    assert table[0].split() == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    rows = [o.split() for o in table[1:]]
    assert [o[0] for o in rows] == [str(i) for i in range(len(rows))] and len(rows) >= 2
    assert float(rows[-1][1]) < float(rows[0][1]) and 0.5 < float(rows[-1][3]) < 1


def test_names_the_two_commands():
    assert 'make run' in text and 'make test' in text


def test_map_is_every_room():
    pages = [re.sub(r'^\d+_|\.ipynb$', '', o.name) for o in (root/'nbs').glob('[0-9]*.ipynb')]
    linked = re.findall(r'^- \[\d+ .*?\]\(https://[\w./-]+/fastloop/([\w.]+)\.html\):', text, re.M)
    assert sorted(linked) == sorted(pages)


def test_begins_with_the_promise_the_picture_and_the_doors():
    assert 'pip install fastloop\n```' in text[:text.index('```python')]
    alt, file = re.search(r'!\[(.+)\]\((.+)\)', text).groups()
    assert len(alt) > 20 and (root/file).read_bytes().startswith(b'\x89PNG')
    doors = text[text.index('## Three doors'):text.index('## Two commands')]
    for page in ('first_look', 'callbacks', 'coming_from_fastai', 'coming_from_keras'):
        assert f'/fastloop/{page}.html)' in doors
    assert '## State of the project' in text and 'ipynb' not in text


def test_trains_the_short_way():
    lines = code[0].splitlines()
    assert sum('from_folder' in o for o in lines) == sum('.fit' in o for o in lines) == 1
    assert '/255' not in code[0]


def test_claims_only_what_is_pinned():
    settings = ConfigParser(delimiters=['='])
    settings.read(root/'settings.ini', encoding='utf-8')
    pins = dict(o.split('==') for o in (root/'constraints.txt').read_text().split() if '==' in o)
    line = re.search(r'^Tested with (.*?)\. ', text, flags=re.M)[1]
    claims = dict(o.split() for o in line.split(', '))
    assert claims.pop('Python') == settings['DEFAULT']['tested_python']
    required = {re.split('[<>=]', o)[0] for o in settings['DEFAULT']['requirements'].split()}
    assert set(claims) == required
    assert claims == {o: pins[o] for o in required}
    runs = import_module('tools.test_versions')
    also = re.search(r'`make test-versions` .* Python (.+) to (.+), each .* allowed, (.+), and',
                     text)
    assert also.groups() == (runs.pythons[0], runs.pythons[-1], runs.oldest_torch())
    assert settings['DEFAULT']['min_python'] == runs.pythons[0]


def test_stale_readme_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, 'target', tmp_path/'README.md')
    (tmp_path/'README.md').write_text('old')
    monkeypatch.setattr(sys, 'argv', ['readme.py', '--check'])
    try:
        readme.main()
    except SystemExit as e:
        assert 'README.md: out of date' in str(e.code)
    else:
        raise AssertionError('an old README was not noticed')
    assert (tmp_path/'README.md').read_text() == 'old'
