"""Write README.md from `nbs/index.ipynb`; with `--check`, only say whether it is up to date.

Two cells of the index are written here first: the map of the rooms, from the notebooks, and the
tested versions, from settings.ini and constraints.txt.
"""
import argparse
import configparser
import json
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
if str(root) not in sys.path:
    sys.path.insert(0, str(root))
from tools.rooms import nbs, rooms  # noqa: E402

index, target = nbs/'index.ipynb', root/'README.md'


def settings():
    "The settings of the project"
    config = configparser.ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def pins():
    "The pinned version of every package in constraints.txt"
    lines = (root/'constraints.txt').read_text(encoding='utf-8').splitlines()
    return dict(o.lower().split('==') for o in lines if '==' in o)


def tested():
    "What the tests run with: Python, then each package that fastloop requires"
    names = [re.split(r'[<>=!~]', o)[0].lower() for o in settings()['requirements'].split()]
    return {'Python': settings()['tested_python']} | {o: pins()[o] for o in sorted(names)}


def room_map():
    "The rooms by layer: each with its number, its title and its promise"
    lines, section = ['## The rooms'], None
    for o in rooms():
        if o.section != section:
            section = o.section
            lines += ['', f'**{section}**', '']
        lines.append(f'- [{o.number} {o.title}]({o.path.name}): {o.promise}')
    return '\n'.join(lines)


def versions():
    "The versions that the tests ran with"
    found = ', '.join(f'{name} {version}' for name, version in tested().items())
    return f'## Versions\n\nTested with {found}. Other versions may work, but are not tested.'


generated = {'rooms': room_map, 'versions': versions}


def fresh(nb):
    "The notebook with its generated cells as they should be"
    for cell in nb['cells']:
        mark = re.match(r'<!-- generated: (\w+) -->', ''.join(cell['source']))
        if mark:
            text = f'{mark[0]}\n\n{generated[mark[1]]()}'
            cell['source'] = text.splitlines(keepends=True)
    return nb


def outputs(cell):
    "What a code cell printed, as Markdown"
    for o in cell['outputs']:
        if o.get('name') == 'stderr':
            continue
        data = o.get('data', {})
        text = ''.join(o.get('text') or data.get('text/plain', '')).rstrip()
        if 'image/png' in data or 'text/html' in data or not text:
            raise SystemExit('README can hold printed text only: a cell of index.ipynb shows '
                             f'{sorted(data) or o["output_type"]}')
        yield f'```\n{text}\n```'


def markdown(nb):
    "The whole notebook as Markdown for GitHub"
    parts = []
    for cell in nb['cells']:
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            text = re.sub(r'<!-- generated: \w+ -->\s*', '', text).strip()
            parts.append(re.sub(r'\]\(([\w.-]+\.ipynb)', r'](nbs/\1', text))
        elif cell['cell_type'] == 'code':
            code = '\n'.join(o for o in text.splitlines() if not o.startswith('#|')).strip()
            parts += [f'```python\n{code}\n```'] if code else []
            parts += outputs(cell)
    text = '\n\n'.join(o for o in parts if o) + '\n'
    return text.replace('\n```\n\n```python\n', '\n\n')  # cells that follow each other are one


def main():
    "Parse the command line and do what it says"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='change nothing')
    check = parser.parse_args().check
    stored = index.read_text(encoding='utf-8')
    nb = fresh(json.loads(stored))
    wanted = {index: json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n',
              target: markdown(nb)}
    stale = [o for o, text in wanted.items()
             if not o.exists() or o.read_text(encoding='utf-8') != text]
    if check and stale:
        raise SystemExit(f'{", ".join(o.name for o in stale)}: out of date, run make readme')
    for o in stale:
        o.write_text(wanted[o], encoding='utf-8')
    print('README.md is up to date' if not stale else f'wrote {", ".join(o.name for o in stale)}')


if __name__ == '__main__':
    main()
