"The website that tools/docs.py makes of the notebooks, read as files."
import ast
import getpass
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest
from filelock import FileLock

rare = pytest.mark.rare  # run by `make test-all` alone

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
docs = import_module('tools.docs')
rooms = import_module('tools.rooms')


class Recorder(HTMLParser):
    "The sections of a page by id, each with the links in it, and what the page loads"

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.open = {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == 'section':
            self.open.append(attrs.get('id'))
            self.links.setdefault(attrs.get('id'), [])
        if tag == 'a' and self.open:
            self.links[self.open[-1]].append(attrs.get('href'))
        if tag in ('script', 'link', 'img', 'iframe'):
            self.loads.append(attrs.get('src') or attrs.get('href') or '')

    def handle_endtag(self, tag):
        if tag == 'section':
            self.open.pop()


class Prose(HTMLParser):
    "The text of a page that is no code"

    def __init__(self, text):
        super().__init__()
        self.text, self.inside = '', 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside += tag in ('pre', 'code', 'script', 'style')

    def handle_endtag(self, tag):
        self.inside -= tag in ('pre', 'code', 'script', 'style')

    def handle_data(self, data):
        self.text += '' if self.inside else data


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The site, built anew, and a copy that no other process builds again"
    copy = tmp_path_factory.mktemp('site')/'docs'
    with FileLock(Path(tempfile.gettempdir())/f'fastloop-docs-{getpass.getuser()}.lock'):
        built = subprocess.run([sys.executable, root/'tools'/'docs.py'], cwd=root, text=True,
                               capture_output=True)
        assert built.returncode == 0, built.stdout + built.stderr
        return shutil.copytree(root/'_docs', copy)


def public_definitions(module):
    "What a module offers: its classes and functions, and their public methods: name -> line"
    file, found = Path(import_module(module).__file__), {}
    offered = import_module(module).__all__
    for node in ast.parse(file.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in offered:
            found[node.name] = node.lineno
            for o in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(o, ast.FunctionDef) and not o.name.startswith('_'):
                    found.setdefault(f'{node.name}.{o.name}', o.lineno)
    return file, found


def test_the_reference_lists_the_methods_of_a_class():
    learner = public_definitions('fastloop.learner')[1]
    assert {'Learner.fit', 'Learner.get_preds', 'Learner.save', 'Learner.freeze'} <= set(learner)
    data = public_definitions('fastloop.data.bunch')[1]
    assert {'DataBunch.create', 'DataBunch.from_tensors', 'DataBunch.one_batch'} <= set(data)


@rare
@pytest.mark.parametrize('room', [o for o in rooms.rooms() if o.module], ids=lambda o: o.module)
def test_every_exported_name_links_to_its_source(site, room):
    page = Recorder((site/room.page).read_text(encoding='utf-8'))
    file, names = public_definitions(room.module)
    git_url = docs.get_config().git_url
    path = file.relative_to(root).as_posix()
    for name, line in names.items():
        anchor = docs.anchors(room.module)[name]
        assert anchor in page.links, f'{room.page} has no entry for {name}'
        assert f'{git_url}/blob/main/{path}#L{line}' in page.links[anchor]


def offered_by(cls):
    "Every public method and property that instances have by their class, from our own code"
    import_module('fastloop.all')  # hangs the verbs on the learner
    for name in dir(cls):
        home = next((o for o in cls.__mro__ if name in vars(o)), object)
        value = vars(home).get(name)
        if (not name.startswith('_') and home.__module__.startswith('fastloop.')
                and isinstance(value, property | classmethod | staticmethod | FunctionType)):
            yield name


@rare
@pytest.mark.parametrize('room', [o for o in rooms.rooms() if o.module], ids=lambda o: o.module)
def test_a_class_lists_all_it_offers(site, room):
    page = Recorder((site/room.page).read_text(encoding='utf-8'))
    module = import_module(room.module)
    for name in docs.exported(room.module):
        if not isinstance(cls := getattr(module, name), type):
            continue
        section = docs.anchors(room.module)[name]
        shown = {o.rpartition('.')[2] for o in [*page.links, *page.links[section]] if o}
        shown |= {o.rpartition('.')[2].removesuffix('-class') for o in shown}
        assert [o for o in offered_by(cls) if o.lower() not in shown] == [], name


@rare
def test_what_is_hung_on_a_class_stands_there(site):
    page = Recorder((site/'learner.html').read_text(encoding='utf-8'))
    line = public_definitions('fastloop.train')[1]['fit_one_cycle']
    assert any(o.endswith(f'/fastloop/train.py#L{line}')
               for o in page.links['learner.fit_one_cycle'])
    for name in ('get_preds', 'fit', 'lr_find', 'fine_tune', 'to_fp16', 'export', 'checkpoint'):
        assert f'learner.{name}' in page.links
    text = docs.ApiRenderer(import_module('fastloop.train').Learner, module='fastloop.learner')
    assert 'Learner.mixup(alpha' in text._repr_markdown_()  # called without `learn`
    assert 'recorder.plot' in Recorder((site/'callback.recorder.html').read_text()).links


@rare
def test_nothing_is_loaded_from_elsewhere(site):
    for html in site.rglob('*.html'):
        loads = Recorder(html.read_text(encoding='utf-8')).loads
        assert [o for o in loads if re.match(r'(https?:)?//', o)] == []
    for css in site.rglob('*.css'):
        assert '@import' not in css.read_text(encoding='utf-8')


def test_prose_is_told_from_code():
    assert Prose('<p>a <code>b</code> <pre>c <code>d</code> e</pre>](f</p>').text == 'a  ](f'


@rare
def test_no_page_shows_the_markdown_of_a_link(site):
    found = {o.name: re.findall(r'.{,30}\]\(.{,30}', Prose(o.read_text(encoding='utf-8')).text)
             for o in site.rglob('*.html')}
    assert {name: shown for name, shown in found.items() if shown} == {}


@rare
def test_room_page_has_prose_code_and_entries(site):
    text = (site/'anneal.html').read_text(encoding='utf-8')
    for part in ('What hurts', 'class="cell-output', 'src="data:image/png', 'id="reference"',
                 '<td', 'Schedules · '):
        assert part in text


class Shape:
    "A shape."

    def __init__(self, side: int | None = None,  # length of a side, in <metres>
                 *names: str,  # what to call it | or not
                 fill=print):  # what to do
        pass

    def area(self) -> float:  # square metres
        """Its area.

        Raises: ValueError if there is none
        """

    @property
    def corners(self): "How many corners"

    @classmethod
    def unit(cls): "The shape of side 1"

    def _hidden(self): pass


def test_renderer():
    "show_doc's renderer draws a class, its methods and its parameters as Markdown"
    text = docs.ApiRenderer(Shape)._repr_markdown_()
    assert text.startswith('### Shape {#shape .api-entry}')
    assert 'Shape(side=None, *names, fill=print)' in text
    assert r'|`side`|`int\|None`|`None`|length of a side, in \<metres>|' in text
    assert r'|`*names`|`str`||what to call it \| or not|' in text
    assert '#### Shape.area {#shape.area .api-entry}' in text and '**Raises:** ValueError' in text
    assert '```python\nShape.corners\n```' in text and 'Shape.unit()' in text
    assert '_hidden' not in text and 'self' not in text


class Measure:
    "A measure."
    func = None  # the name under which a partial has its function


@pytest.mark.parametrize('module, name, parameter', [
    ('fastloop.vision.models', 'resnet50', '|`num_classes`|`int`|`1000`|outputs|'),
    ('fastloop.metric_functions', 'mean_absolute_error', '|`pred`|`Tensor`|predicted numbers|')])
def test_a_function_without_a_def_of_its_own_shows_its_parameters(module, name, parameter):
    "One that another function makes, and one under a second name"
    found = docs.entry(module, name)
    assert f'{name}(' in found and parameter in found and ' = ' not in found


def test_every_name_of_the_star_has_an_entry():
    everything = import_module('fastloop.all')
    homes = {name: o.__module__ for name in everything.__all__
             if (o := getattr(everything, name)).__class__.__module__ == 'builtins'
             and getattr(o, '__module__', '').startswith('fastloop.')}
    assert len(homes) > 150
    assert [o for o, module in homes.items() if o not in docs.exported(module)] == []


def test_a_line_says_what_a_name_is():
    assert docs.summary(Measure) == 'A measure.'
    assert docs.summary(Shape.area) == 'Its area.'
    assert docs.summary(Shape.corners) == 'How many corners'
    assert docs.summary(partial(Shape.area, None)) == 'Its area.'


def test_show_doc_uses_it():
    "show_doc, run from the root of the project, links a name to its line"
    code = ('from nbdev.showdoc import show_doc; from fastloop.core import listify; '
            'print(show_doc(listify)._repr_markdown_())')
    shown = subprocess.run([sys.executable, '-c', code], cwd=root, text=True, check=True,
                           capture_output=True).stdout
    line = public_definitions('fastloop.core')[1]['listify']
    assert f'/blob/main/fastloop/core.py#L{line})' in shown and '{#listify .api-entry}' in shown


@pytest.mark.parametrize('written, shown', [
    ('[x](00_core.ipynb)', '[x](/core.html)'),
    ('[x](12_data.bunch.ipynb#a)', '[x](/data.bunch.html#a)'),
    ('[x](../CHANGELOG.md)', '[x](https://github.com/fastloop-dev/fastloop/blob/main/CHANGELOG.md)'),
    ('[`f`](https://fastloop-dev.github.io/fastloop/core.html#f)', '[`f`](/core.html#f)'),
    ('[x](https://pytorch.org)', '[x](https://pytorch.org)'),
])
def test_links(written, shown):
    assert docs.site_links(written, docs.get_config()) == shown


@pytest.mark.parametrize('written, shown', [
    ('[`Dice`](https://fastloop-dev.github.io/fastloop/metrics.html#dice)',
     '[`Dice`](/metrics.html#dice-class)'),
    ('[`dice()`](https://fastloop-dev.github.io/fastloop/metrics.html#dice)',
     '[`dice()`](/metrics.html#dice)'),
    ('[`fastloop.metrics.dice`](https://fastloop-dev.github.io/fastloop/metrics.html#dice)',
     '[`fastloop.metrics.dice`](/metrics.html#dice)'),
    ('[`Adam`](https://fastloop-dev.github.io/fastloop/keras.optimizers.html#adam)', '`Adam`'),
    ('[`_hidden`](https://fastloop-dev.github.io/fastloop/metrics.html#_hidden)', '`_hidden`'),
])
def test_links_to_names(written, shown):
    entries = {'metrics.html': {'dice': 'dice', 'Dice': 'dice-class'},
               'keras.optimizers.html': {'Adam': 'adam'}}
    assert docs.name_links(written, docs.get_config(), entries) == shown


def test_headings_leave_anchors_to_exported_names():
    assert docs.free_anchors('## Runner', {'runner'}) == '## Runner {#about-runner}'
    assert docs.free_anchors('## The runner', {'runner'}) == '## The runner'


pages = import_module('tools.docs_pages')


def test_every_public_class_has_a_line():
    assert [name for _, name, o in pages.classes() if not docs.summary(o)] == []


@rare
def test_all_callbacks_are_on_one_page(site):
    text = (site/'callbacks.html').read_text(encoding='utf-8')
    found = {name for _, name, _ in pages.callbacks()}
    assert {'EarlyStoppingCallback', 'TraceCallback', 'keras.callbacks.EarlyStopping'} <= found
    for module, name, value in pages.callbacks():
        anchor = docs.anchors(module)[value.__name__]
        assert f'href="{docs.page_of(module)}#{anchor}"' in text, name
    assert set(pages.examples) <= found


@pytest.mark.parametrize('module, name', [o[:2] for o in pages.callbacks()])
def test_the_example_of_a_callback_makes_one(module, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {**vars(import_module(module)), **vars(import_module('fastloop.all')),
             'keras': import_module('fastloop.keras'),
             'lr_scheduler': import_module('torch.optim.lr_scheduler')}
    if pages.example(name).startswith('class '):
        exec(pages.example(name), names)
        return
    learner, nn = names['Learner'], import_module('torch').nn
    names['learn'] = learner(import_module('fastloop.examples').fashion(64)[0], nn.Linear(1, 1))
    calls = [o for o in ast.walk(ast.parse(pages.example(name))) if isinstance(o, ast.Call)
             and ast.unparse(o.func) == name]
    try:
        made = eval(ast.unparse(calls[0]), names)
    except ImportError as e:  # an optional package
        pytest.skip(str(e))
    assert type(made).__name__ == name.rpartition('.')[2]


@rare
def test_all_names_lead_to_their_entries(site):
    text = (site/'reference.html').read_text(encoding='utf-8')
    for room in [o for o in rooms.rooms() if o.module]:
        for name in docs.exported(room.module):
            assert f'href="{room.page}#{docs.anchors(room.module)[name]}"' in text, name


@rare
def test_pages_that_no_notebook_holds(site):
    assert 'training, µs a step' in (site/'performance.html').read_text(encoding='utf-8')
    versions = (site/'versions.html').read_text(encoding='utf-8')
    assert 'What has changed' in versions and docs.get_config().version in versions
    missing = (site/'404.html').read_text(encoding='utf-8')
    assert '<base href=' in missing and 'search box' in missing


@rare
def test_each_page_says_where_its_notebook_is(site):
    for room in rooms.rooms():
        text = (site/room.page).read_text(encoding='utf-8')
        assert f'<a download href="notebooks/{room.path.name}"' in text
        assert (site/'notebooks'/room.path.name).read_bytes() == room.path.read_bytes()
        for part in ('/blob/main/nbs/', '/edit/main/nbs/', 'colab.research.google.com/'):
            assert re.search(rf'href="https://[^"]*{part}[^"]*{re.escape(room.path.name)}"', text)
        assert 1 <= room.minutes and f'{room.minutes} minute' in text
        assert 'aria-current="page"' in text


def test_the_course_takes_an_afternoon_or_two():
    times = {o.path.name: o.minutes for o in rooms.rooms()}
    assert max(v for k, v in times.items() if k[0] in '1234') <= 30
    assert 120 <= sum(v for k, v in times.items() if k[0] in '12') <= 300


@pytest.mark.parametrize('code, found', [
    ('import a', True), ('from a import b\nimport c', True), ('%time 3\nimport a', False),
    ('import a\na.b', False), ('', False), ('this is no code', False)])
def test_cells_that_only_import_are_known(code, found):
    assert docs.only_imports(code) == found


def test_a_page_begins_with_its_idea():
    cell = docs.mk_cell
    cells = [cell('text', 'markdown'), cell('import a'), cell('import b'), cell('a.b')]
    folded = docs.fold_imports(cells)
    assert [o.source for o in folded] == [
        'text', '#| code-fold: true\n#| code-summary: "Imports"\nimport a\n\nimport b', 'a.b']
