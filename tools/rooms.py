"The rooms: what each notebook is called, what it promises, and where it stands in the course."
import json
import re
from dataclasses import dataclass
from pathlib import Path

root = Path(__file__).resolve().parent.parent
nbs = root/'nbs'

# the first digit of a room's number names the part of the course that it belongs to
sections = {'0': 'Toolbox', '1': 'The loop', '2': 'The learner', '3': 'Schedules',
            '4': 'Callbacks', '5': 'Using it', '6': 'Images', '7': 'Many processes',
            '8': 'Other libraries', '9': 'All together'}


@dataclass
class Room:
    "One notebook of the course"
    path: Path  # the notebook
    number: str  # its two digits
    title: str  # the heading of its first cell
    promise: str  # the quoted line below it
    module: str | None  # the module it makes, such as `fastloop.core`; None if it exports nothing
    minutes: int = 0  # how long it takes to read

    @property
    def page(self):
        "The name of its page: `00_core.ipynb` is shown as `core.html`"
        return page_name(self.path.name)

    @property
    def section(self):
        "The part of the course that it belongs to"
        return sections[self.number[0]]


def page_name(notebook):
    "The page of a notebook's file name: without the number, as nbdev links to it"
    return re.sub(r'^\d+[a-z]*_', '', notebook).removesuffix('.ipynb') + '.html'


def sources(nb, kind):
    "The sources of the cells of one kind in a notebook, in order"
    cells = json.loads(nb.read_text(encoding='utf-8'))['cells']
    return [''.join(o['source']) for o in cells if o['cell_type'] == kind]


def reading_time(nb):
    """Minutes that a page takes: 180 words a minute, and 30 lines of code

    Tables, imports and folded solutions are looked up, not read.
    """
    aside = re.compile(r'<details>.*?</details>|```.*?```|^\|.*?$', flags=re.M | re.S)
    words = aside.sub('', '\n'.join(sources(nb, 'markdown'))).split()
    code = '\n'.join(sources(nb, 'code')).splitlines()
    lines = [o for o in code if o.strip() and not o.startswith(('#|', 'import ', 'from '))]
    return max(1, round(len(words)/180 + len(lines)/30))


def read_room(nb):
    "Read what a notebook says about itself"
    head = next(iter(sources(nb, 'markdown')), '')
    title = re.search(r'^# (.+)$', head, flags=re.M)
    promise = re.search(r'^> (.+)$', head, flags=re.M)
    if not title or not promise:
        raise SystemExit(f'{nb.name}: its first cell must be `# title` and `> one-line promise`')
    exports = [re.search(r'^#\|\s*default_exp\s+(\S+)', o, flags=re.M)
               for o in sources(nb, 'code')]
    module = next((f'fastloop.{o[1]}' for o in exports if o), None)
    return Room(nb, nb.name[:2], title[1].strip(), promise[1].strip().rstrip('.'), module,
                reading_time(nb))


def rooms(folder=nbs):
    "Every numbered notebook, in the order of its number"
    return [read_room(o) for o in sorted(Path(folder).glob('[0-9][0-9]_*.ipynb'))]
