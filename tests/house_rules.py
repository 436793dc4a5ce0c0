"""The house rules of the notebooks, each a function that reads all rooms and yields what breaks it.

A rule is a function from the list of rooms to messages; no message means that the rule holds.
`test_house_rules.py` runs every rule over `nbs/`, and every rule over a small notebook that breaks
it, so that no rule can pass by not looking.
"""
import ast
import io
import json
import re
import sys
import tokenize
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

root = Path(__file__).resolve().parent.parent
RULES = {}


def rule(check):
    "Register `check` under its own name"
    RULES[check.__name__] = check
    return check


# ---- notebooks -----------------------------------------------------------------------------------
@dataclass(eq=False)  # compared by what they are, for there are many
class Cell:
    "One cell of a notebook, with what its source says; what many rules ask is found out once"
    room: object
    index: int
    raw: dict

    @property
    def where(self): return f'{self.room.name}, cell {self.index}'

    @property
    def is_code(self): return self.raw['cell_type'] == 'code'

    @cached_property
    def source(self): return ''.join(self.raw['source'])

    @property
    def outputs(self): return self.raw.get('outputs', [])

    @cached_property
    def directives(self):
        "The words after `#|`, such as `export` or `default_exp data.load`"
        return re.findall(r'^#\|\s*(.+?)\s*$', self.source, flags=re.M) if self.is_code else []

    @cached_property
    def is_export(self):
        return any(re.fullmatch(r'exports?(\s.*)?', o) for o in self.directives)

    @property
    def is_internal(self):
        "Exported, but kept out of `__all__`"
        return 'exporti' in self.directives

    @cached_property
    def code(self):
        "The source as Python reads it: lines that only IPython understands are blanked"
        return re.sub(r'^\s*[%!].*$', 'pass', self.source, flags=re.M)

    @cached_property
    def tree(self): return ast.parse(self.code)

    @cached_property
    def nodes(self):
        "Everything in the tree"
        return list(ast.walk(self.tree))

    @cached_property
    def comments(self): return comments(self.code)

    @cached_property
    def code_lines(self):
        "The numbers of the lines that hold code: no docstrings, comments, nor rests of signatures"
        lines = {i for o in tokens(self.code) if o.type not in NO_CODE
                 for i in range(o.start[0], o.end[0]+1)}
        return lines - docstring_lines(self.tree) - signature_lines(self.tree)

    @cached_property
    def statements(self): return self.tree.body

    @cached_property
    def definitions(self):
        "Names bound at top level by a class, a function or an assignment, with their nodes"
        return list(defined(self.statements))

    @property
    def public(self):
        "The definitions that users of the package see"
        return [(name, node) for name, node in self.definitions if not name.startswith('_')]


@dataclass
class Room:
    "One notebook"
    path: Path

    @cached_property
    def cells(self):
        raw = json.loads(self.path.read_text(encoding='utf-8'))['cells']
        return [Cell(self, i, o) for i, o in enumerate(raw)]

    @property
    def name(self): return self.path.name

    @property
    def stem(self): return self.path.stem

    @property
    def number(self):
        "Its layer; a notebook without one, such as `index`, stands above all"
        found = re.match(r'\d+', self.stem)
        return int(found[0]) if found else 1000

    @cached_property
    def code(self): return [o for o in self.cells if o.is_code]

    @cached_property
    def exported(self): return [o for o in self.code if o.is_export or o.is_internal]

    @cached_property
    def defaults(self):
        return [o.split()[1] for c in self.code for o in c.directives
                if re.match(r'default_exp\s+\S', o)]

    @property
    def module(self):
        "The module it makes, such as `callback.core`"
        return self.defaults[0] if self.defaults else None

    @property
    def headings(self):
        "The text of its `##` headings, with the index of their cells"
        return [(i.strip(), c.index) for c in self.cells if not c.is_code
                for i in re.findall(r'^##\s+(.+)$', c.source, flags=re.M)]


def read_rooms(folder):
    "Every notebook of a folder in the order of its number"
    return [Room(o) for o in sorted(Path(folder).glob('*.ipynb'))]


# ---- Python --------------------------------------------------------------------------------------
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENDMARKER}


def tokens(source): return tokenize.generate_tokens(io.StringIO(source).readline)


def is_import(node): return isinstance(node, (ast.Import, ast.ImportFrom))


def blocks(node):
    "The statement lists of an `if`, `try` or `with`, one after the other"
    parts = [getattr(node, o, []) for o in ('body', 'orelse', 'finalbody')]
    parts += [o.body for o in getattr(node, 'handlers', [])]
    return [o for part in parts for o in part]


def decorators(node):
    "The decorators of a definition as dotted names, without their arguments"
    found = [o.func if isinstance(o, ast.Call) else o for o in node.decorator_list]
    return [ast.unparse(o) for o in found]


def is_patch(node):
    return isinstance(node, FUNCTIONS) and bool({'patch', 'patch_to'} & set(decorators(node)))


def defined(statements):
    "Yield `(name, node)` for what these top-level statements define"
    for o in statements:
        if isinstance(o, DEFINITIONS):
            if not is_patch(o): yield o.name, o
        elif isinstance(o, (ast.Assign, ast.AnnAssign)):
            targets = o.targets if isinstance(o, ast.Assign) else [o.target]
            names = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            yield from ((n.id, o) for n in names if isinstance(n.ctx, ast.Store))
        elif isinstance(o, (ast.If, ast.Try, ast.With)):
            seen = {}
            for name, node in defined(blocks(o)): seen.setdefault(name, node)
            yield from seen.items()


def imported(nodes):
    "Yield `(module, name, node)` for every import among nodes; `name` is None for `import module`"
    for o in nodes:
        if isinstance(o, ast.Import): yield from ((a.name, None, o) for a in o.names)
        elif isinstance(o, ast.ImportFrom):
            module = '.'*o.level + (o.module or '')
            yield from ((module, a.name, o) for a in o.names)


def comments(source):
    "The comments of a source by line, without nbdev's directives"
    found = {o.start[0]: o.string for o in tokens(source) if o.type == tokenize.COMMENT}
    return {i: o.lstrip('# ').strip() for i, o in found.items() if not o.startswith('#|')}


def documented(lines, notes):
    """The names that have a docment

    `lines` are `(line, name)` pairs: a comment behind a name belongs to the last name of its line,
    comment lines above a line that has none belong to it as well, as `fastcore.docments` reads it.
    """
    owner = dict(lines)
    found = set()
    for line, name in owner.items():
        if notes.get(line) or (notes.get(line-1) and line-1 not in owner): found.add(name)
    return found


ADAPTER = {'library', 'knows', 'adapt'}  # what every adapter has


# ---- one definition, one place -------------------------------------------------------------------
def namespace(room):
    "The part of the package in which a room's names must differ"
    return 'keras' if room.module and room.module.split('.')[0] == 'keras' else ''


@rule
def names_are_defined_once(rooms):
    "One exported definition per public name in all modules; fastloop.keras is counted by itself"
    seen = {}
    for room in rooms:
        own = room.module if namespace(room) else ''  # Keras' modules may repeat each other's names
        for cell in room.exported:
            for name, _ in cell.public:
                if name in ADAPTER and (room.module or '').startswith('adapters.'): continue
                other = seen.setdefault((own, name), cell)
                if other is not cell:
                    yield f'{cell.where}: `{name}` is defined in {other.where} already'


@rule
def modules_are_made_once(rooms):
    "Each notebook makes one module, named like the notebook, and no other makes it"
    seen = {}
    for room in rooms:
        if len(room.defaults) > 1: yield f'{room.name}: {len(room.defaults)} `default_exp`'
        if room.exported and not room.defaults: yield f'{room.name}: exports without `default_exp`'
        if room.module is None: continue
        if room.module in seen: yield f'{room.name}: {seen[room.module]} makes {room.module} too'
        seen.setdefault(room.module, room.name)
        named = room.module.removesuffix('.__init__')  # the module of a folder has its name
        if room.stem.partition('_')[2] != named and not named.startswith('__'):
            yield f'{room.name}: makes {room.module}, which its name does not say'


@rule
def files_are_numbered(rooms):
    "A room's name is its number and its module; rooms of one number are one layer"
    seen = set()
    for room in rooms:
        if room.stem == 'index': continue
        if not re.match(r'\d\d_[a-z]', room.stem): yield f'{room.name}: not named NN_module.ipynb'
        if room.stem in seen: yield f'{room.name}: there twice'
        seen.add(room.stem)


@rule
def naive_versions_stay_inside(rooms):
    "What is called naive is shown, never exported"
    for room in rooms:
        for cell in room.exported:
            for name, _ in cell.definitions:
                if re.match(r'_*naive', name, flags=re.I):
                    yield f'{cell.where}: exports `{name}`'


@rule
def classes_are_whole(rooms):
    "No `@patch`, except the verbs that 50_train hangs on Learner"
    for room in rooms:
        if room.module == 'train': continue
        for cell in room.code:
            for node in cell.nodes:
                if is_patch(node): yield f'{cell.where}: `{node.name}` is patched in'


# ---- imports -------------------------------------------------------------------------------------
def made_by(module, name, layers):
    "The highest number of the rooms behind `from module import name`, None if no room is"
    wanted = module.removeprefix('fastloop').lstrip('.')
    for o in ('.'.join(filter(None, [wanted, name])), wanted):
        if o in layers: return layers[o]
        inside = [n for m, n in layers.items() if o and m.startswith(o + '.')]
        if inside: return max(inside)
    return None


def is_ours(module): return module == 'fastloop' or module.startswith('fastloop.')


@rule
def imports_point_down(rooms):
    """Exported code imports lower-numbered rooms only; what is shown may use every room

    The images that run through the course come from a room far behind.
    """
    layers = {room.module: room.number for room in rooms if room.module}
    for room in rooms:
        for cell in room.code:
            for module, name, _ in imported(cell.nodes):
                if module.startswith('.'): yield f'{cell.where}: relative import of {module}'
                if not is_ours(module) or (module, name) == ('fastloop', None): continue
                if (module, name) == ('fastloop', '__version__'): continue
                other = made_by(module, name, layers)
                if other is None: yield f'{cell.where}: no room makes {module} ({name})'
                elif other >= room.number and cell in room.exported:
                    yield f'{cell.where}: imports {module} ({name}), room {other}'


@rule
def callbacks_keep_apart(rooms):
    "A callback module never imports runner, learner, data, vision or what stands above them"
    apart = {'runner', 'learner', 'data', 'vision', 'train', 'distributed', 'keras', 'all'}
    for room in rooms:
        if not room.module or not room.module.startswith('callback'): continue
        for cell in room.exported:
            for module, name, _ in imported(cell.nodes):
                path = module.split('.') + [name]
                if path[0] == 'fastloop' and len(path) > 1 and path[1] in apart:
                    yield f'{cell.where}: imports {module} ({name})'


@rule
def imports_have_their_own_cells(rooms):
    "A cell that imports does nothing else; only exported functions may import inside"
    for room in rooms:
        for cell in room.code:
            top = [o for o in cell.statements if is_import(o)]
            if top and len(top) < len(cell.statements):
                yield f'{cell.where}: imports and does something else'
            # the site runs every cell in which an import occurs, exported ones in any case
            nested = any(is_import(o) for o in cell.nodes)
            if nested and not top and cell not in room.exported:
                yield f'{cell.where}: imports inside a definition'


@rule
def imports_are_explicit(rooms):
    "No star imports, except of fastloop.all in the last rooms and the home page"
    for room in rooms:
        for cell in room.code:
            for module, name, _ in imported(cell.nodes):
                allowed = module == 'fastloop.all' and room.number >= 88 and not cell.is_export
                if name == '*' and not allowed: yield f'{cell.where}: from {module} import *'


OPTIONAL = {'matplotlib', 'pandas', 'ipywidgets', 'IPython', 'tqdm', 'tensorboard', 'PIL', 'keras',
            'safetensors', 'fastai', 'requests', 'sklearn', 'scipy', 'torchvision', 'mlflow',
            'wandb'}


def is_for_checkers(node):
    "What only checkers of types read: `if TYPE_CHECKING: …`"
    return isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'


@rule
def optional_packages_are_imported_late(rooms):
    "A module imports what is heavy or optional inside the function that needs it"
    for room in rooms:
        for cell in room.exported:
            at_once = [o for o in cell.statements
                       if not isinstance(o, DEFINITIONS) and not is_for_checkers(o)]
            for module, name, _ in imported(ast.walk(ast.Module(at_once, []))):
                if module.split('.')[0] in OPTIONAL:
                    yield f'{cell.where}: imports {module} ({name}) with the module'


# ---- size and style ------------------------------------------------------------------------------
def docstring_lines(tree):
    "The lines of all docstrings in a tree"
    found = set()
    for o in ast.walk(tree):
        if not isinstance(o, DEFINITIONS) or ast.get_docstring(o) is None: continue
        found |= set(range(o.body[0].lineno, o.body[0].end_lineno+1))
    return found


def signature_lines(tree):
    "The lines of signatures but for their first: they are there for the comments on parameters"
    functions = [o for o in ast.walk(tree) if isinstance(o, FUNCTIONS)]
    found = set()
    for o in functions:
        ends = [o.lineno] + [p.end_lineno for p in ast.walk(o.args) if hasattr(p, 'end_lineno')]
        ends += [o.returns.end_lineno] if o.returns else []
        closed = max(ends) if o.body[0].lineno == max(ends) else o.body[0].lineno-1
        found |= set(range(o.lineno+1, closed+1))
    return found


def code_lines(cell, node=None):
    """How many lines of a cell, or of one definition in it, hold code

    Docstrings, comments, and the lines that signatures take to comment their parameters are not
    counted.
    """
    lines = cell.code_lines
    return len(lines & set(range(node.lineno, node.end_lineno+1)) if node else lines)


@rule
def cells_are_small(rooms):
    """40 lines at most but for classes, which are whole; a third of a room's cells over 16 lines

    A list of imports is not read line by line and does not count for the third; nor does a class.
    """
    for room in rooms:
        long = 0
        for cell in room.code:
            if any(isinstance(o, ast.ClassDef) for o in cell.statements): continue
            size = len(cell.source.splitlines())
            if size > 40: yield f'{cell.where}: {size} lines'
            long += code_lines(cell) > 16 and not all(map(is_import, cell.statements))
        if 3*long > len(room.code):
            yield f'{room.name}: {long} of {len(room.code)} code cells have more than 16 lines'


@rule
def classes_are_short(rooms):
    "An exported class has at most 120 lines of code, and a function at most 25"
    for room in rooms:
        for cell in room.exported:
            for o in cell.nodes:
                if not isinstance(o, DEFINITIONS): continue
                most, size = 120 if isinstance(o, ast.ClassDef) else 25, code_lines(cell, o)
                if size > most: yield f'{cell.where}: `{o.name}` has {size} lines of code'


def classes(rooms):
    "Every exported class, with its cell"
    for room in rooms:
        for cell in room.exported:
            yield from ((cell, o) for o in cell.statements if isinstance(o, ast.ClassDef))


def bases(node): return [ast.unparse(o).split('.')[-1] for o in node.bases]


def uses(rooms):
    "How often each name is used in exported code, otherwise than as a base class"
    found = {}
    for room in rooms:
        for cell in room.exported:
            own = {id(b) for o in cell.nodes if isinstance(o, ast.ClassDef)
                   for b in o.bases}
            for o in cell.nodes:
                if isinstance(o, ast.Name) and id(o) not in own:
                    found[o.id] = found.get(o.id, 0) + 1
    return found


@rule
def classes_are_no_staircase(rooms):
    "A private class has more than one subclass, or some other use"
    used, known = uses(rooms), list(classes(rooms))
    for cell, node in known:
        if not node.name.startswith('_'): continue
        heirs = [o.name for _, o in known if node.name in bases(o)]
        if len(heirs) == 1 and not used.get(node.name):
            yield f'{cell.where}: `{node.name}` is only a step below `{heirs[0]}`'


@rule
def classes_stand_near_their_base(rooms):
    """Between a public class and the base it is a kind of stands at most one class

    A private one has more than one heir; a public one has users of its own.
    """
    known, heirs = {}, {}
    for cell, node in classes(rooms):
        known.setdefault((namespace(cell.room), node.name), node)
        for o in bases(node): heirs.setdefault(o, set()).add(node.name)

    def between(space, node, name):
        "The names of our classes above `node`, up to the base, which is not counted"
        ways = [[]]
        for o in bases(node):
            above = known.get((space, o)) or known.get(('', o))
            if above is not None and above is not node: ways.append([o, *between(space, above, o)])
        return max(ways, key=len)

    for cell, node in classes(rooms):
        if node.name.startswith('_'): continue
        inner = between(namespace(cell.room), node, node.name)[:-1]
        if len(inner) > 1: yield f'{cell.where}: `{node.name}` stands on {", ".join(inner)}'
        elif inner and inner[0].startswith('_') and len(heirs[inner[0]]) == 1:
            yield f'{cell.where}: `{inner[0]}` has no other heir than `{node.name}`'


@rule
def modules_keep_their_secrets(rooms):
    "No private name is imported from another module"
    for room in rooms:
        for cell in room.exported:
            for module, name, _ in imported(cell.nodes):
                if is_ours(module) and name and re.match('_[a-z]', name, flags=re.I):
                    if not name.startswith('__'): yield f'{cell.where}: imports {name} of {module}'


def is_error(node):
    "An exception is a name for what went wrong, not a class to be understood"
    return any(re.search('(Exception|Error)$', o) for o in [node.name, *bases(node)])


@rule
def pages_keep_to_their_size(rooms):
    "In parts 1 to 4: at most 1,500 words, 200 exported lines of code, three public classes"
    for room in rooms:
        if not 10 <= room.number < 50: continue
        aside = r'^<details>.*?^</details>|^\s*```.*?^\s*```'  # solutions, and code to look at
        texts = [re.sub(aside, '', o.source, flags=re.M | re.S)
                 for o in room.cells if not o.is_code]
        words = sum(len(o.split()) for o in texts)
        if words > 1500: yield f'{room.name}: {words} words'
        lines = sum(code_lines(o) for o in room.exported if not all(map(is_import, o.statements)))
        if lines > 200: yield f'{room.name}: {lines} exported lines'
        public = [n for c in room.exported if c.is_export for n, o in c.public
                  if isinstance(o, ast.ClassDef) and not is_error(o)]
        if len(public) > 3: yield f'{room.name}: {len(public)} public classes'


@rule
def notebooks_are_small(rooms):
    "At most 300 kB"
    for room in rooms:
        size = room.path.stat().st_size
        if size > 300_000: yield f'{room.name}: {size/1000:.0f} kB'


@rule
def lines_are_short(rooms):
    "At most 100 columns in code cells"
    for room in rooms:
        for cell in room.code:
            for line in cell.source.splitlines():
                if len(line) > 100: yield f'{cell.where}: {len(line)} columns: {line[:40]}…'


@rule
def statements_have_their_own_lines(rooms):
    "No `;`"
    for room in rooms:
        for cell in room.code:
            if ';' not in cell.code: continue
            if any(o.type == tokenize.OP and o.string == ';' for o in tokens(cell.code)):
                yield f'{cell.where}: a semicolon'


# ---- stored outputs ------------------------------------------------------------------------------
@rule
def outputs_are_stored(rooms):
    "Notebooks are stored executed: with outputs, no errors, no noise, no execution counts"
    for room in rooms:
        if not any(o.outputs for o in room.code): yield f'{room.name}: no outputs'
        for cell in room.code:
            counts = [cell.raw.get('execution_count'), *(o.get('execution_count')
                                                         for o in cell.outputs)]
            if any(o is not None for o in counts): yield f'{cell.where}: an execution count'
            for o in cell.outputs:
                if o['output_type'] == 'error': yield f"{cell.where}: a stored {o.get('ename')}"
                if o.get('name') == 'stderr':
                    yield f"{cell.where}: output on stderr: {''.join(o['text'])[:60]!r}"


@rule
def pictures_have_a_text(rooms):
    "A cell that shows a picture says what is on it, for those who do not see it: `#| fig-alt: …`"
    for room in rooms:
        for cell in room.code:
            shown = [o.get('data', {}) for o in cell.outputs]
            drawn = any(kind.startswith('image/') for o in shown for kind in o)
            told = any(re.match(r'fig-alt:\s*\S', o) for o in cell.directives)
            if drawn and not told: yield f'{cell.where}: add `#| fig-alt: "what is seen"`'
            pages = ''.join(''.join(o.get('text/html', '')) for o in shown)
            for tag in re.findall(r'<img\b[^>]*>', pages):
                if not re.search(r'\balt="[^"]', tag): yield f'{cell.where}: an image without alt'


def output_text(cell):
    "What a reader sees below a cell, as text"
    for o in cell.outputs:
        yield ''.join(o.get('text', ''))
        yield from (''.join(v) for k, v in o.get('data', {}).items()
                    if k.startswith('text/') and isinstance(v, (str, list)))


@rule
def outputs_are_repeatable(rooms):
    "No memory addresses, control characters or times of the clock in stored outputs"
    for room in rooms:
        for cell in room.code:
            text = '\n'.join(output_text(cell))
            if re.search(r'\b0x[0-9a-f]{6,}', text): yield f'{cell.where}: a memory address'
            if re.search('[\r\x08\x1b]', text): yield f'{cell.where}: a control character'


# ---- teaching ------------------------------------------------------------------------------------
# no skeleton: the home page, the list of everything, and a page of examples
ALONE = {'index', '10_first_look', '90_all', '88_bring_your_callbacks', '89_coming_from_fastai',
         '89_coming_from_keras'}
SKELETON = ['What we will be able to write', 'The naive version', 'What hurts',
            'The version we keep', 'Using it', 'Exercises', 'Where next']


def has_skeleton(room): return room.stem not in ALONE and room.number < 90


def has_exercises(room): return any(o == 'Exercises' for o, _ in room.headings)


@rule
def rooms_begin_with_a_promise(rooms):
    "The first cell holds `# title` and `> one-line promise` and nothing else"
    for room in rooms:
        first = room.cells[0] if room.cells else None
        text = '' if first is None or first.is_code else first.source.strip()
        if not re.fullmatch(r'# [^\n]+\n+> [^\n]+(\n+- \w+: [^\n]+)*', text):
            yield f'{room.name}: the first cell is not `# title` and `> promise`'


@rule
def rooms_have_the_skeleton(rooms):
    "The sections of a room, in their order"
    for room in filter(has_skeleton, rooms):
        at = -1
        names = [o for o, _ in room.headings]
        for wanted in SKELETON:
            found = [i for i, o in enumerate(names) if o.rstrip(' .:').lower() == wanted.lower()]
            if not found: yield f'{room.name}: no section `## {wanted}`'
            elif min(found) < at: yield f'{room.name}: `## {wanted}` stands too early'
            else: at = min(found)


@dataclass
class Exercise:
    """One exercise of a room: four cells, `None` for what is missing

    The task, which begins `**1. Its name.**`; a stub to fill in; a check that prints what is wrong;
    the solution, folded in `<details>`.
    """
    number: int
    task: object
    stub: object = None
    check: object = None
    solution: str = None  # its code
    problems: list = field(default_factory=list)  # what is wrong with its form, in words

    def __str__(self): return f'exercise {self.number}'


def section(room):
    "The cells below `## Exercises`, up to the next section"
    cells, inside = [], False
    for cell in room.cells:
        if not cell.is_code and cell.source.startswith('## '):
            inside = bool(re.match(r'## Exercises\s*$', cell.source, flags=re.M))
        if inside: cells.append(cell)
    return cells


def tasks(cell):
    "The tasks that a text cell holds"
    return [] if cell.is_code else re.findall(r'^\*\*(\d+)\. [^*]+\*\*', cell.source, flags=re.M)


def folded(cell):
    "The code in `<details>`, None if the cell is something else"
    found = re.fullmatch(r'<details>\n<summary>Solution</summary>\n\n(.*?)\n*</details>\s*',
                         '' if cell.is_code else cell.source, flags=re.S)
    code = found and re.search(r'^```python\n(.*?)^```', found[1], flags=re.M | re.S)
    return code and code[1]


def read_exercises(room):
    "The exercises of a room in their order, none if no cell has a check of this form"
    found = []
    if not any(o.is_code and 'with checking(' in o.source for o in section(room)): return found
    for cell in section(room):
        if numbers := tasks(cell):
            found.append(Exercise(int(numbers[0]), cell))
            if len(numbers) > 1: found[-1].problems.append('a text cell with two tasks')
        elif not found: continue
        elif cell.is_code:
            part = 'check' if 'with checking(' in cell.source else 'stub'
            if getattr(found[-1], part): found[-1].problems.append(f'a second {part} cell')
            setattr(found[-1], part, cell)
        elif folded(cell): found[-1].solution = folded(cell)
    for o in found:
        missing = [k for k in ('stub', 'check', 'solution') if getattr(o, k) is None]
        o.problems += [f'no {k}' for k in missing]
        if not missing and not o.task.index < o.stub.index < o.check.index:
            o.problems.append('not in the order task, stub, check, solution')
    return found


@rule
def exercises_can_be_checked(rooms):
    "3 to 5 exercises, each with a stub, a check that says what is wrong, and a folded solution"
    for room in filter(has_exercises, rooms):
        found = read_exercises(room)
        if not 3 <= len(found) <= 5: yield f'{room.name}: {len(found)} exercises'
        for i, o in enumerate(found, 1):
            if o.number != i: yield f'{o.task.where}: {o} stands in place {i}'
            for problem in o.problems: yield f'{o.task.where}: {o}: {problem}'
            said = '' if o.check is None else '\n'.join(output_text(o.check))
            if not said.startswith('Not yet: '):
                yield f'{o.task.where}: {o}: the check does not tell what the stub lacks'


def checks(cell):
    "Does a cell assert something?"
    calls = [o.func for o in cell.nodes if isinstance(o, ast.Call)]
    names = [getattr(o, 'id', getattr(o, 'attr', '')) for o in calls]
    return (any(isinstance(o, ast.Assert) for o in cell.nodes)
            or any(re.match(r'test_|raises$', o) for o in names))


@rule
def exports_are_shown_and_checked(rooms):
    "Within the two code cells after an export: a stored output and an assert"
    for room in rooms:
        if room.stem in ALONE: continue
        for i, cell in enumerate(room.code):
            if not (cell.is_export and cell.public): continue
            # consecutive exports share the cells that follow them
            after = [o for o in room.code[i+1:] if o not in room.exported][:2]
            missing = [what for what, ok in [('output', any(o.outputs for o in after)),
                                             ('assert', any(map(checks, after)))] if not ok]
            names = ', '.join(o for o, _ in cell.public)
            if missing: yield f"{cell.where}: {names}: no {' and no '.join(missing)} after it"


@rule
def exports_do_not_pile_up(rooms):
    "At most three cells with exported definitions in a row"
    for room in rooms:
        if room.stem in ALONE: continue
        row = 0
        for cell in room.code:
            if cell not in room.exported: row = 0
            row += any(isinstance(o, ast.ClassDef)
                       or isinstance(o, DEFINITIONS) and not o.name.startswith('_')
                       for o in cell.statements)
            if row == 4: yield f'{cell.where}: the fourth exported definition before any example'


# ---- documentation -------------------------------------------------------------------------------
def is_event(name): return re.match(r'(begin|after|before|on)_', name)


def public_parts(room):
    "Yield `(cell, name, node)` for exported functions, classes and their public methods"
    for cell in room.code:
        if not cell.is_export: continue
        for name, node in cell.public:
            if not isinstance(node, DEFINITIONS): continue
            yield cell, name, node
            if not isinstance(node, ast.ClassDef): continue
            for o in node.body:
                setter = isinstance(o, FUNCTIONS) and any(
                    d.endswith(('.setter', '.deleter', 'overload')) for d in decorators(o))
                if not isinstance(o, FUNCTIONS) or setter: continue
                if o.name == '__init__' or not o.name.startswith('_'):
                    yield cell, f'{name}.{o.name}', o
        for o in cell.statements:
            if is_patch(o) and not o.name.startswith('_'): yield cell, o.name, o


def parameters(node):
    "The parameters of a function that a caller may name, as `ast.arg`"
    args = node.args.posonlyargs + node.args.args
    own = isinstance(node, FUNCTIONS) and args and args[0].arg in ('self', 'cls')
    return [o for o in (args[1:] if own else args) + node.args.kwonlyargs
            if not o.arg.startswith('_')]


def fields(node):
    "The fields of a dataclass; none of any other class"
    if not any(o.split('.')[-1] == 'dataclass' for o in decorators(node)): return []
    return [o for o in node.body if isinstance(o, ast.AnnAssign)]


@rule
def exports_have_docstrings(rooms):
    "Public functions, classes and methods have a docstring whose first line is one sentence"
    for room in rooms:
        for cell, name, node in public_parts(room):
            if name.endswith('.__init__'): continue
            first, *rest = (ast.get_docstring(node) or '').splitlines() or ['']
            if not first.strip(): yield f'{cell.where}: `{name}` has no docstring'
            elif re.search(r'[a-z)`]\. +[A-Z]', first):
                yield f'{cell.where}: the first line of `{name}` is more than one sentence'
            elif rest and rest[0].strip():
                yield f'{cell.where}: no blank line after the first line of `{name}`'


@rule
def parameters_have_docments(rooms):
    "Every parameter of a public function, constructor or method has its comment"
    for room in rooms:
        for cell, name, node in public_parts(room):
            notes = cell.comments
            if isinstance(node, ast.ClassDef):
                lines = [(o.lineno, o.target.id) for o in fields(node)]
            elif is_event(node.name): continue
            else:
                args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                lines = [(o.end_lineno, o.arg) for o in args]  # in the order of the source
                wanted = {o.arg for o in parameters(node)}
                if node.returns: lines.append((node.returns.end_lineno, 'return'))
                missing = wanted - documented(lines, notes)
                if missing: yield f"{cell.where}: `{name}`: no docment for {', '.join(missing)}"
                continue
            missing = {o for _, o in lines} - documented(lines, notes)
            if missing: yield f"{cell.where}: `{name}`: no docment for {', '.join(missing)}"


@rule
def parameters_have_types(rooms):
    "Every parameter of a public function, constructor or method says its type"
    for room in rooms:
        for cell, name, node in public_parts(room):
            if isinstance(node, ast.ClassDef) or is_event(node.name): continue
            bare = [o.arg for o in parameters(node) if o.annotation is None]
            if bare: yield f"{cell.where}: `{name}`: no type for {', '.join(bare)}"


# values of any shape or kind, whatever the function: batches and items, callbacks of any library
ANYTHING = {'b', 'cb', 'items', 'o', 'pred', 'preds', 'value', 'x', 'xb', 'y', 'yb'}
# … and what is said of a single one
TAKES_ANYTHING = {
    'end_workers.loader': 'a loader, its iterator or nothing: what has no workers is left alone',
    'Hypers.__init__.opt': 'an OptimWrapper, whose room is a later one',
    'Runner.all_batches.dl': 'what a callback has put in the place of the loader',
    'Metric.accumulate.run': 'whatever has `pred` and `yb`',
    'AvgStats.accumulate.run': 'whatever has `yb`, `pred` and `loss`',
    'find_recorder.run': 'whatever has `cbs`',
    'Learner.get_preds.dl': 'a loader, or items of any kind',
    'SchedulePlayground.redraw.change': 'what ipywidgets tells, which is not looked at',
    'ImageDataBunch.from_df.df': 'whatever has `columns` and `df[name]`; pandas is optional',
    'CallbackHandler.on_train_begin.pbar': 'not looked at',
    'CallbackHandler.on_epoch_end.val_metrics': 'a loss, or a list that begins with it',
    'CallbackHandler.on_train_end.exception': 'an exception, or `False`',
    'Model.fit.class_weight': 'refused', 'Model.fit.sample_weight': 'refused',
    'Model.evaluate.sample_weight': 'refused'}


@rule
def types_say_something(rooms):
    """A parameter is typed `object` or `Any` only where anything goes

    What `**` gathers and passes on is anything.
    """
    empty = {'object', 'Any', 'object | None', 'Any | None', 'Optional[Any]'}
    for room in rooms:
        for cell, name, node in public_parts(room):
            if isinstance(node, ast.ClassDef): continue
            for o in [*parameters(node), *filter(None, [node.args.vararg])]:
                says = '' if o.annotation is None else ast.unparse(o.annotation).strip('\'"')
                known = o.arg in ANYTHING or f'{name}.{o.arg}' in TAKES_ANYTHING
                if says in empty and not known:
                    yield f'{cell.where}: `{name}`: the type of {o.arg} says nothing'


@rule
def rooms_are_called_by_their_titles(rooms):
    "Rooms refer to each other by links to notebooks that exist, never by a bare number"
    names = {room.name for room in rooms}
    for room in rooms:
        for cell in room.cells:
            if found := re.search(r'\b[Rr]ooms? \d', cell.source):
                yield f'{cell.where}: {found[0]}…'
            for target in [] if cell.is_code else re.findall(r'\]\(([\w.]+\.ipynb)', cell.source):
                if target not in names: yield f'{cell.where}: links to {target}'


# ---- the repository ------------------------------------------------------------------------------
def traces(text):
    "What in a text speaks of one machine or of how the text came about, rather than of the project"
    wanted = [r'(?<![\w.~<{:/-])/(?:root|work|opt|tmp/\w+|home/\w+)/[\w.-]+',
              r'\bA[I]\b', r'\bLL[M]s?\b', r'chat ?bo[t]', r'\bassistan[t]s?\b',
              r'acceptance[ ]suite', r'hidden[ ]tests?\b',
              r'\b(?:DESIG[N]|TOOLCHAI[N])\b', r'\bseed[ ]00\d', r'\bworkplac[e]\b', r'file:///(?:root|work|opt|home)\b',
              r'\b(?:this|another|a later)[ ]session\b', r'\b(?:TOD[O]|FIXM[E]|XX[X])\b']
    return [o[0] for w in wanted for o in re.finditer(w, text)]


def pin_problems(settings, constraints, installed):
    """What is wrong between settings.ini, constraints.txt and the environment that ran the tests

    `settings` maps the keys of settings.ini, `constraints` is the text of the pins, `installed`
    maps package names to their versions.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name as canonical
    pins, lines = {}, [o.split('#')[0].strip() for o in constraints.splitlines()]
    for line in filter(None, lines):
        name, equal, version = line.partition('==')
        if not equal: yield f'constraints.txt: {line} is not a pin'
        if canonical(name) in pins: yield f'constraints.txt: {name} stands twice'
        pins[canonical(name)] = version
    for key in ('requirements', 'dev_requirements', 'types_requirements', 'ui_requirements'):
        for o in map(Requirement, settings.get(key, '').split()):
            pin = pins.get(canonical(o.name))
            if pin is None: yield f'{key}: {o} has no pin in constraints.txt'
            elif not o.specifier.contains(pin, prereleases=True):
                yield f'{key}: the pin {o.name}=={pin} is outside {o}'
            if key == 'requirements' and any(s.operator in ('==', '<', '<=', '~=')
                                             for s in o.specifier):
                yield f'{key}: {o} binds users to old versions'
    if 'torch' not in pins: yield 'constraints.txt: torch is not pinned'
    for name, version in installed.items():
        pin = pins.get(canonical(name))
        if pin and pin != version.split('+')[0]:
            yield f'constraints.txt: {name}=={pin}, but {version} runs the tests'


def python_problems(settings, classifiers, running=sys.version_info[:2]):
    "Python versions that the package's metadata claims and settings.ini does not call tested"
    tested = settings.get('tested_python', '').split()
    claimed = [o.rpartition(' :: ')[2] for o in classifiers
               if re.fullmatch(r'Programming Language :: Python :: 3\.\d+', o)]
    if not tested: yield 'settings.ini: no tested_python'
    for o in claimed:
        if o not in tested: yield f'the metadata claims Python {o}, settings.ini does not'
    smallest = settings.get('min_python', '')
    for o in tested:
        if tuple(map(int, o.split('.'))) < tuple(map(int, smallest.split('.'))):
            yield f'settings.ini: tested_python {o} is below min_python {smallest}'
