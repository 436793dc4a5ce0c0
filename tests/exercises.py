"""The exercises of the rooms, run without the rest of their pages.

`house_rules.read_exercises` says what an exercise is. Wrong answers that a reader would give stand
in `tests/wrong_answers/ROOM.py`, each a cell that begins `# %% 1: a name`.
"""
import ast
import builtins
import re
import symtable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from house_rules import Room, defined, is_import, root

folder = root/'tests'/'wrong_answers'


def read_room(name): return Room(root/'nbs'/f'{name}.ipynb')


def wrong_answers(name, exercises):
    """Every wrong answer to the exercises of a room: number of the exercise, name and code

    A cell without code whose name is `` `old` → `new` `` is the solution with this change.
    """
    path = folder/f'{name}.py'
    parts = re.split(r'^# %% ', path.read_text(encoding='utf-8'), flags=re.M)[1:]
    solutions = {o.number: o.solution for o in exercises}
    for part in parts:
        title, _, code = part.partition('\n')
        number, _, what = title.partition(': ')
        if not code.strip():
            old, new = re.fullmatch(r'`(.+)` → `(.*)`', what).groups()
            code = solutions[int(number)]
            assert old in code, f'{path.name}, {number}: the solution has no {old!r}'
            code = code.replace(old, new)
        yield int(number), what, code


# ---- what an exercise needs of its page ----------------------------------------------------------
def bound(tree):
    "The names that a cell binds at top level"
    names = {o for o, _ in defined(tree.body)}
    names |= {(o.asname or o.name).split('.')[0] for node in tree.body
              if is_import(node) for o in node.names}
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names |= {o.id for o in ast.walk(node)
                      if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}
    return names


def used(source):
    "The names that a piece of code takes from outside its functions"
    found, tables = set(), [symtable.symtable(source, 'cell', 'exec')]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {o.get_name() for o in table.get_symbols() if o.is_referenced()
                  and (o.is_global() or table.get_type() == 'module')}
    return found - set(dir(builtins))


def needed(room, exercises):
    "The code cells above the exercises that bind what these use, and what those use in turn"
    first = min(o.stub.index for o in exercises)
    before = [o for o in room.code if o.index < first]
    binds = {o.index: bound(o.tree) for o in before}
    chosen, open_names = {}, set()
    for o in exercises:
        for code in (o.stub.code, o.check.code, o.solution):
            open_names |= {(name, first) for name in used(code) - bound(ast.parse(code))}
    seen = set()
    while open_names:
        name, limit = todo = open_names.pop()
        seen.add(todo)
        found = next((o for o in reversed(before) if o.index < limit and name in binds[o.index]),
                     None)
        if found is None or found.index in chosen: continue
        chosen[found.index] = found
        # a function may use names that are bound after it, a cell of statements those before
        later = {o for o in used(found.code) if not any(
            o in binds[c.index] for c in before if c.index < found.index)}
        open_names |= {(o, first if o in later else found.index)
                       for o in used(found.code)} - seen
    return [chosen[i] for i in sorted(chosen)]


def namespace(room, exercises):
    "The names with which the exercises of a room can be run"
    names = {'__name__': '__main__', 'display': lambda *args: None, '__file__': str(room.path)}
    for cell in needed(room, exercises): run(cell.code, names, cell.where)
    return names


def run(code, names, where='answer'):
    "Run a piece of code and return what it printed"
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()):
        exec(compile(code, where, 'exec'), names)
    return printed.getvalue()


def answer(exercise, code, names):
    "What the check of an exercise prints when `code` is the answer"
    own = dict(names)
    run(code, own)
    return run(exercise.check.code, own, str(exercise)).strip()
