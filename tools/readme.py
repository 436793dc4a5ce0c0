"""Write README.md from `nbs/index.ipynb`; with `--check`, only say whether it is up to date.

The picture of the run goes into `nbs/run.png`. Links lead to the site.

Two cells of the index are written here first: the map of the rooms, from the notebooks, and the
tested versions, from settings.ini and constraints.txt.
"""
import argparse
import base64
import configparser
import json
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
if str(root) not in sys.path:
    sys.path.insert(0, str(root))
from tools.rooms import nbs, page_name, rooms  # noqa: E402
from tools.test_versions import oldest_torch, pythons  # noqa: E402

index, target, picture = nbs/'index.ipynb', root/'README.md', nbs/'run.png'


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


def short_runs():
    "What `make test-versions` runs with, and what needs more than the oldest torch"
    return (f'`make test-versions` makes a short run with Python {pythons[0]} to {pythons[-1]}, '
            f'each with the oldest torch that is allowed, {oldest_torch()}, and with the newest. '
            "Files that end in `.pt2` need torch 2.9, `.onnx` and `strategy='fsdp'` need 2.8.")


def room_map():
    "The rooms by layer: each with its number, its title and its promise"
    lines, section = ['## The rooms'], None
    for o in sorted(rooms(), key=lambda room: room.section == 'Toolbox'):  # read when needed
        if o.section != section:
            section = o.section
            lines += ['', f'**{section}**', '']
        lines.append(f'- [{o.number} {o.title}]({o.path.name}): {o.promise}')
    return '\n'.join(lines)


def versions():
    "The versions that the tests ran with"
    found = ', '.join(f'{name} {version}' for name, version in tested().items())
    return f'## Versions\n\nTested with {found}. {short_runs()}'


generated = {'rooms': room_map, 'versions': versions}


def fresh(nb):
    "The notebook with its generated cells as they should be"
    for cell in nb['cells']:
        mark = re.match(r'<!-- generated: (\w+) -->', ''.join(cell['source']))
        if mark:
            text = f'{mark[0]}\n\n{generated[mark[1]]()}'
            cell['source'] = text.splitlines(keepends=True)
    return nb


def picture_of(nb):
    "The bytes of the picture that the index shows, and what is on it"
    for cell in nb['cells']:
        for o in cell.get('outputs', []):
            if drawn := o.get('data', {}).get('image/png'):
                alt = re.search(r'^#\| fig-alt: "(.+)"$', ''.join(cell['source']), flags=re.M)
                return base64.b64decode(''.join(drawn)), alt[1]
    raise SystemExit('index.ipynb shows no picture of a run')


def outputs(cell):
    "What a code cell printed, as Markdown"
    for o in cell['outputs']:
        if o.get('name') == 'stderr':
            continue
        data = o.get('data', {})
        text = ''.join(o.get('text') or data.get('text/plain', '')).rstrip()
        if 'image/png' in data:
            yield f'![{picture_of({"cells": [cell]})[1]}]({picture.relative_to(root)})'
            continue
        if 'text/html' in data or not text:
            raise SystemExit('README can hold printed text only: a cell of index.ipynb shows '
                             f'{sorted(data) or o["output_type"]}')
        yield f'```\n{text}\n```'


def markdown(nb):
    "The whole notebook as Markdown for GitHub"
    parts, site = [], f"{settings()['doc_host']}{settings()['doc_baseurl']}"
    for cell in nb['cells']:
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            text = re.sub(r'<!-- generated: \w+ -->\s*', '', text).strip()
            text = re.sub(r'\]\(([\w.-]+\.ipynb)', lambda m: f']({site}/{page_name(m[1])}', text)
            parts.append(text.replace('](../', ']('))
        elif cell['cell_type'] == 'code':
            code = '\n'.join(o for o in text.splitlines() if not o.startswith('#|')).strip()
            if code and parts[-1].startswith('```python'):  # cells that follow each other are one
                parts[-1] = parts[-1].removesuffix('```') + f'\n{code}\n```'
            elif code:
                parts.append(f'```python\n{code}\n```')
            parts += outputs(cell)
    return '\n\n'.join(o for o in parts if o) + '\n'


def main():
    "Parse the command line and do what it says"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='change nothing')
    check = parser.parse_args().check
    stored = index.read_text(encoding='utf-8')
    nb = fresh(json.loads(stored))
    text = json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n'
    wanted = {index: text.encode(), target: markdown(nb).encode(), picture: picture_of(nb)[0]}
    stale = [o for o, found in wanted.items() if not o.exists() or o.read_bytes() != found]
    if check and stale:
        raise SystemExit(f'{", ".join(o.name for o in stale)}: out of date, run make readme')
    for o in stale:
        o.write_bytes(wanted[o])
    print('README.md is up to date' if not stale else f'wrote {", ".join(o.name for o in stale)}')


if __name__ == '__main__':
    main()
