"""Build the website into `_docs`: notebooks become pages of prose, code, plots and API tables.

nbdev reads the notebooks, this file adds to each page the entries of the names it exports, and
smalldocs writes the HTML. Nothing is executed: the pages show the outputs that the notebooks hold.
`ApiRenderer` is also what `show_doc` uses (`renderer` in settings.ini).
"""
import ast
import html
import importlib
import inspect
import json
import os
import re
import shutil
import sys
import textwrap
from functools import cached_property, lru_cache
from pathlib import Path

import yaml
from execnb.nbio import mk_cell, read_nb, write_nb
from fastcore.docments import DocmentTbl, ShowDocRenderer
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from nbdev import processors
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from smalldocs.site import build as build_site

root = Path(__file__).resolve().parent.parent
if str(root) not in sys.path:
    sys.path.insert(0, str(root))
from tools import docs_pages  # noqa: E402
from tools.rooms import nbs, page_name, read_room, rooms  # noqa: E402

# what stands before the rooms in the list of pages; the rest of the rooms follow in their order,
# the toolbox last, which is read when it is needed
first = {'Look it up': ['cheat_sheet', 'callbacks.md', 'reference.md', 'what_is_checked',
                        'performance.md', 'versions.md'],
         'Coming from elsewhere': ['coming_from_fastai', 'coming_from_keras',
                                   'bring_your_callbacks']}
last = ['what_next']

exporting = {'export', 'exporti', 'exports'}  # the directives of cells that go into the package
members = (staticmethod, classmethod, property, cached_property)


# ---- one entry of an API table

def code_spans(text, plain):
    "Apply `plain` to the parts of Markdown `text` that are not code"
    parts = re.split(r'(`+[^`]+`+)', text)
    return ''.join(o if i % 2 else plain(o) for i, o in enumerate(parts))


def escape(text):
    "Markdown that shows `text` as it is, code spans kept"
    return code_spans(text, lambda o: re.sub(r'([<$*]|__)', lambda m: '\\' + '\\'.join(m[0]), o))


def type_name(o):
    "How a type or a default is written in a signature or a table"
    if isinstance(o, str):
        return o
    if isinstance(o, type) or callable(o) and not hasattr(o, '__args__'):
        return getattr(o, '__name__', None) or type(o).__name__
    return re.sub(r'~|\b(?:\w+\.)+(?=[A-Z])', '', str(o))  # classes without their modules


def default_text(o):
    "How a default value is written"
    return re.sub(r' at 0x[0-9a-f]+', '', type_name(o) if callable(o) else repr(o))


class Written:
    "Something whose `repr` is a given text"

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def is_member(name, value):
    "Whether an attribute of a class is a public method or property"
    return not name.startswith('_') and (inspect.isfunction(value) or isinstance(value, members))


def public_members(cls):
    "The public methods and properties of a class itself, those hung on it too, as they came"
    return [name for name, o in vars(cls).items() if is_member(name, o)]


def has_entry(cls):
    "Whether a class is one of the package's and stands in the reference under its own name"
    module = cls.__module__
    return module.startswith('fastloop.') and cls.__name__ in exported(module)


def inherited(cls):
    "The public members that a class of the package gets from each of its bases: base -> names"
    found, seen = {}, set(public_members(cls))
    for base in cls.__mro__[1:]:
        names = [o for o in public_members(base) if o not in seen]
        if names and base.__module__.startswith('fastloop.'):
            found[base] = names
        seen.update(names)
    return found


def all_members(cls):
    "The members that have an entry below their class: its own, and those of bases without entries"
    extra = [name for base, names in inherited(cls).items() if not has_entry(base)
             for name in names]
    return public_members(cls) + extra


def summary(o):
    "The first sentence that an object says about itself, in Markdown"
    if isinstance(o, property):
        o = o.fget
    elif not inspect.isclass(o):  # a class may have an attribute of this name
        o = getattr(o, 'func', o)
    text = inspect.cleandoc(getattr(o, '__doc__', None) or '').partition('\n')[0]
    return escape(text)


class ApiRenderer(ShowDocRenderer):
    "Heading, link to the source, signature, docstring and parameters; of a class, its methods too"

    def __init__(self, sym, name=None, title_level=3, module=None, bound=False):
        self.property = isinstance(sym, property | cached_property)
        super().__init__(getattr(sym, 'func', sym) if self.property else sym, name, title_level)
        self.module = module
        first = next(iter(self.sig.parameters), None) if bound and self.sig else None
        self.left_out = {'self', first}  # what a call of the method does not name

    def source(self):
        "Where the code is on GitHub, or None"
        if self.module is None:
            return NbdevLookup().code(self.nm)
        return source_link(self.module, self.nm) or written_at(self.sym)

    def signature(self):
        "The call as a reader would write it, on several lines if it is long"
        if self.sig is None or self.property:
            return self.nm
        params = []
        for o in self.sig.parameters.values():
            if o.name in self.left_out:
                continue
            if o.default is not o.empty:
                o = o.replace(default=Written(default_text(o.default)))
            params.append(o.replace(annotation=o.empty) if DocmentTbl(self.sym).has_docment else o)
        text = self.nm + str(inspect.Signature(params))
        if len(text) <= 80 or not params:
            return text
        inner = text[len(self.nm) + 1:-1]
        lines = textwrap.wrap(inner, 76, break_long_words=False, break_on_hyphens=False)
        return '\n'.join([self.nm + '(', *['    ' + o for o in lines], ')'])

    def docstring(self):
        "The docstring, each of its labelled lines (`Raises: ...`) a paragraph of its own"
        text = inspect.cleandoc(getattr(self.sym, '__doc__', None) or '')
        return re.sub(r'\n+(Raises|Source|Returns|Yields|Note):', r'\n\n**\1:**', escape(text))

    def table(self):
        "The parameters with type, default and meaning"
        table, link = DocmentTbl(self.sym), NbdevLookup().link_line
        if not table.has_docment:
            return ''

        def cell(column, value):
            if value is inspect.Parameter.empty or value is None and column != 'default':
                return ''
            text = type_name(value).replace('\n', ' ')
            if column == 'docment':
                return link(escape(text).replace('|', r'\|'))
            if column == 'default':
                text = default_text(value)
            return f'`{text}`'.replace('|', r'\|').replace(' ', '') if text else ''

        def row(name, values):
            return '|' + '|'.join([name, *[cell(o, values[o]) for o in table._columns]]) + '|'

        rows = [row(f'`{self.stars(o)}{o}`', table.dm[o])
                for o in table.params if o not in self.left_out and o in table.dm]
        if table.has_return:
            rows.append(row('**returns**', table.dm['return']))
        columns = ['', *table._columns.values()]
        return '\n'.join(['|' + '|'.join(columns) + '|', '|' + ':--|'*len(columns), *rows])

    def stars(self, name):
        "The stars that stand before a parameter in the signature"
        params = self.sig.parameters if self.sig else {}
        kind = params[name].kind if name in params else None
        return {inspect.Parameter.VAR_POSITIONAL: '*',
                inspect.Parameter.VAR_KEYWORD: '**'}.get(kind, '')

    def bases(self):
        "What a class builds on"
        if not inspect.isclass(self.sym):
            return ''
        names = [f'`{o.__name__}`' for o in self.sym.__bases__ if o is not object]
        return 'Builds on ' + ', '.join(names) + '.' if names else ''

    def entries(self):
        "One entry for each member of a class: its own, hung on it, or from a base without entries"
        if not inspect.isclass(self.sym):
            return []
        found = [(name, inspect.getattr_static(self.sym, name)) for name in all_members(self.sym)]
        return [ApiRenderer(o if isinstance(o, members[2:]) else getattr(self.sym, name),
                            f'{self.nm}.{name}', self.title_level + 1, self.module,
                            bound=inspect.isfunction(o))
                for name, o in found]

    def from_bases(self):
        "What a class gets from bases that have entries: the names, each a link"
        bases = inherited(self.sym) if inspect.isclass(self.sym) and self.module else {}
        lines = []
        for base, names in bases.items():
            if has_entry(base):
                at, page = anchors(base.__module__), page_of(base.__module__)
                links = [f'[`{o}`](/{page}#{at[f"{base.__name__}.{o}"]})' for o in names]
                lines.append(f'**From [`{base.__name__}`](/{page}#{at[base.__name__]}):** '
                             + ' · '.join(links))
        return '\n\n'.join(lines)

    def _repr_markdown_(self):
        link = NbdevLookup().link_line
        source = self.source()
        parts = [heading(self.nm, self.title_level, self.module),
                 source_div(source) if source else '',
                 f'```python\n{self.signature()}\n```',
                 link(self.docstring()), link(self.bases()), self.table(),
                 self.from_bases(), *[o._repr_markdown_() for o in self.entries()]]
        return '\n\n'.join(o for o in parts if o)


def heading(name, level, module=None):
    "The heading of an entry, with the anchor that links to `name` use"
    anchor = anchors(module)[name] if module else name.lower()
    return f"{'#'*level} {name.replace('_', chr(92) + '_')} {{#{anchor} .api-entry}}"


def source_div(link):
    "The link to the source of an entry"
    return f'::: {{.api-source}}\n[source]({link})\n:::'


# ---- the entries of one module

@lru_cache(None)
def definitions(module):
    "The top-level definitions of a module, the members of its classes too: name -> syntax tree"
    tree = ast.parse(Path(importlib.import_module(module).__file__).read_text(encoding='utf-8'))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for o in targets for name in getattr(o, 'elts', [o])]
            named = [(o.id, node) for o in names if isinstance(o, ast.Name)]
        else:
            named = [(getattr(node, 'name', None), node)]
        if isinstance(node, ast.ClassDef):
            named += [(f'{node.name}.{o.name}', o) for o in node.body if hasattr(o, 'name')]
        for name, o in named:
            found.setdefault(name, o)  # of a property the getter, not the setter
    return found


def source_link(module, name):
    "Where `name` is defined, as a link to its line on GitHub; None if `module` does not define it"
    node = definitions(module).get(name)
    if node is None:
        return None
    cfg = get_config()
    path = Path(importlib.import_module(module).__file__).relative_to(cfg.config_path).as_posix()
    return f'{cfg.git_url}/blob/{cfg.branch}/{path}#L{node.lineno}'


def written_at(o):
    "Where a function that a class has from elsewhere is written, as a link to its line, or None"
    o = inspect.unwrap(getattr(o, 'fget', None) or getattr(o, 'func', None) or
                       getattr(o, '__func__', o))
    name = getattr(o, '__qualname__', '').partition('.<locals>')[0]
    return source_link(o.__module__, name) if name else None


@lru_cache(None)
def page_of(module):
    "The page of a module"
    return next(o.page for o in rooms() if o.module == module)


@lru_cache(None)
def exported(module):
    "The public names that `module` itself defines, in order"
    names = importlib.import_module(module).__all__
    return [o for o in names if not o.startswith('_') and o in definitions(module)]


@lru_cache(None)
def anchors(module):
    "The anchor of every entry on a module's page: nbdev's, in small letters, made unique"
    importlib.import_module('fastloop.all')  # classes have all their names, as everybody finds them
    found = {}
    for name in exported(module):
        value = getattr(importlib.import_module(module), name)
        methods = all_members(value) if inspect.isclass(value) else []
        for o in (name, *[f'{name}.{method}' for method in methods]):
            taken = o.lower() in found.values()  # `Dice` beside `dice`
            found[o] = f'{o.lower()}-class' if taken else o.lower()
    return found


def entry(module, name):
    "The entry of one exported name, in Markdown"
    node, value = definitions(module)[name], getattr(importlib.import_module(module), name)
    made = inspect.isfunction(value) and value.__doc__  # by a function, or under another name
    if hasattr(node, 'name') or made:
        return ApiRenderer(value, name, 3, module)._repr_markdown_()
    text = textwrap.shorten(ast.unparse(node), 400, placeholder=' ...')
    return '\n\n'.join([heading(name, 3, module), source_div(source_link(module, name)),
                        f'```python\n{text}\n```'])


def reference(module):
    "The last section of a page: an entry for every name that its room exports"
    entries = [entry(module, o) for o in exported(module)]
    return '\n\n'.join(['## Reference', *entries]) if entries else ''


# ---- from notebook to page

class PageFilter(processors.FilterDefaults):
    "nbdev's own preparation of a notebook, without running it and without hiding its exports"

    def base_procs(self):
        skip = (processors.add_show_docs, processors.exec_show_docs, processors.insert_warning,
                processors.rm_export, processors.mv_exports, processors.add_fold)
        return [o for o in super().base_procs() if o not in skip]


def slug(text):
    "The anchor that a heading gets by itself"
    text = re.sub(r'[^\w\s.-]', '', re.sub(r'\]\([^)]*\)', '', text)).strip().lower()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', text))


def free_anchors(source, taken):
    "Give headings whose anchor belongs to an exported name another one"
    def rename(m):
        anchor = slug(m[2])
        return f'{m[0]} {{#about-{anchor}}}' if anchor in taken and '{#' not in m[2] else m[0]
    return re.sub(r'^(#{2,6}) (.+)$', rename, source, flags=re.M)


def name_links(text, cfg, entries, here=''):
    """nbdev's links from a name in backticks to its entry, kept where there is such an entry

    `Adam` is torch's, unless the page `here` is about Keras.
    """
    def link(m):
        foreign = m['page'].startswith('keras') and 'keras' not in here and m['name'][:5] != 'keras'
        found = {} if foreign else entries.get(m['page'], {})
        name, code = m['name'], f"`{m['name']}{m['call']}`"
        anchor = next((a for o, a in found.items() if f'.{name}'.endswith(f'.{o}')), None)
        return f"[{code}](/{m['page']}#{anchor})" if anchor else code

    base = re.escape(f'{cfg.doc_host}{cfg.doc_baseurl}/')
    return re.sub(r'\[`(?P<name>[\w.]+)(?P<call>(?:\(\))?)`\]\(' + base
                  + r'(?P<page>[\w.]+\.html)#[\w.]+\)', link, text)


def site_links(text, cfg):
    "Links to this site and to notebooks become links to pages, links to other files go to GitHub"
    base = re.escape(f'{cfg.doc_host}{cfg.doc_baseurl}')
    text = re.sub(base + r'/?([^\s)\'"]*)', r'/\1', text)
    text = re.sub(r'(\]\()(?:\./)?([\w.-]+\.ipynb)', lambda m: f'{m[1]}/{page_name(m[2])}', text)
    return re.sub(r'(\]\()\.\./(?:\.\./)*([\w./-]+)',
                  lambda m: f'{m[1]}{cfg.git_url}/blob/{cfg.branch}/{m[2]}', text)


def front_matter(nb, room):
    "What smalldocs reads about a page, from the first cell of its notebook"
    text = nb.cells.pop(0).source if nb.cells[0].cell_type == 'raw' else '---\n---'
    found = yaml.safe_load(text.strip().strip('-')) or {}
    found.pop('output-file', None)
    found.setdefault('title', room.title)
    return mk_cell(f'---\n{yaml.safe_dump(found, allow_unicode=True)}---\n', 'raw')


def only_imports(source):
    "Whether the code of a cell does nothing but import"
    try:
        tree = ast.parse(re.sub(r'^\s*[%!].*$', 'pass', source, flags=re.M))
    except SyntaxError:
        return False
    return bool(tree.body) and all(isinstance(o, ast.Import | ast.ImportFrom) for o in tree.body)


def fold_imports(cells):
    "Cells that only import become one below each other, folded: a page begins with its idea"
    kept, folding = [], False
    for cell in cells:
        imports = cell.cell_type == 'code' and only_imports(cell.source)
        if imports and folding:
            kept[-1].source += f'\n\n{cell.source}'
        else:
            kept.append(cell)
            if imports:
                folded = '#| code-fold: true\n#| code-summary: "Imports"'
                cell.source = f'{folded}\n{cell.source}'
        folding = imports
    return kept


def place(room, cfg):
    "Where a room stands, how long it takes, and where its notebook is: the line under its title"
    at = f'{cfg.branch}/nbs/{room.path.name}'
    colab = cfg.git_url.replace('https://github.com/', 'https://colab.research.google.com/github/')
    part = next((name for name, o in first.items() if Path(room.page).stem in o), room.section)
    facts = [part, f'{room.minutes} minute{"s" if room.minutes > 1 else ""}']
    if room.module:
        facts.append(f'module `{room.module}`')
        facts += ['[reference](#reference)'] if exported(room.module) else []
    links = [f'[download](https://{notebook_host}/{room.path.name})',
             f'[GitHub]({cfg.git_url}/blob/{at})', f'[Colab]({colab}/blob/{at})',
             f'[edit]({cfg.git_url}/edit/{at})']
    return f'::: {{.room}}\n{" · ".join(facts)}\n\nNotebook: {" · ".join(links)}\n:::'


def page(nb_path, cfg, entries):
    "The notebook of one page: what the room shows, then the entries of what it exports"
    room, nb = read_room(nb_path), read_nb(nb_path)
    PageFilter()(nb)
    front = front_matter(nb, room)
    taken = set(entries.get(room.page, {}).values())
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == 'markdown':
            cell.source = free_anchors(cell.source, taken)
        elif only_imports(cell.source):
            continue
        elif exporting & set(getattr(cell, 'directives_', None) or ()) and cell.source.strip():
            cell.source = f'#| label: export-{i}\n{cell.source}'
    nb.cells = [o for o in nb.cells if o.source.strip() or o.get('outputs')]
    if room.number.isdigit():  # not the home page, whose example begins with the import
        nb.cells = fold_imports(nb.cells)
        nb.cells.insert(0, mk_cell(place(room, cfg), 'markdown'))
    if room.module:
        nb.cells.append(mk_cell(reference(room.module), 'markdown'))
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            links = name_links(cell.source, cfg, entries, room.page)
            cell.source = site_links(links, cfg)
    nb.cells.insert(0, front)
    nb.metadata.pop('widgets', None)
    return nb


def site_config(cfg):
    "What settings.ini and the rooms say about the site"
    return {'project': {'output-dir': cfg.doc_path.name},
            'website': {'title': cfg.title, 'description': cfg.description,
                        'site-url': f'{cfg.doc_host}{cfg.doc_baseurl}', 'repo-url': cfg.git_url,
                        'repo-branch': cfg.branch, 'sidebar': {'contents': sidebar()},
                        'page-footer': {'left': f'fastloop {cfg.version}',
                                        'right': '[Versions](/versions.html) · '
                                                 '[All names](/reference.html)'}}}


def sidebar():
    "The navigation: what is looked up, then the rooms in order, in the parts of the course"
    found = {Path(o.page).stem: o for o in rooms()}

    def files(names):
        return [o if o.endswith('.md') else f'{o}.ipynb' for o in names
                if o.endswith('.md') or o in found]

    contents = [{'text': 'Home', 'href': 'index.ipynb'}]
    contents += [{'section': name, 'contents': files(pages)} for name, pages in first.items()]
    placed = {o for pages in first.values() for o in pages} | set(last)
    parts = {}
    for stem, room in found.items():
        if stem not in placed:
            parts.setdefault(room.section, []).append(stem)
    toolbox = parts.pop('Toolbox', [])
    parts = {**parts, **({'Toolbox': toolbox} if toolbox else {})}
    contents += [{'section': name, 'contents': files(pages)} for name, pages in parts.items()]
    return contents + [{'href': o} for o in files(last)]


def pages_in_order():
    "The pages as the navigation lists them"
    for o in sidebar():
        listed = o['contents'] if 'section' in o else [o['href']]
        yield from [Path(name).stem + '.html' for name in listed]


# ---- the site without a network

def formula(tex, size=1.15):
    "A formula as an SVG that takes the colour and the size of the text around it"
    font = FontProperties(math_fontfamily='stix')
    path = TextPath((0, 0), f'${tex}$', size=100, prop=font)
    box, steps = path.get_extents(), []
    letters = {path.MOVETO: 'M', path.LINETO: 'L', path.CURVE3: 'Q', path.CURVE4: 'C'}
    for points, code in path.iter_segments():
        if code == path.CLOSEPOLY:
            steps.append('Z')
        else:
            points = zip(points[::2], -points[1::2])
            steps.append(letters[code] + ' '.join(f'{x:.1f} {y:.1f}' for x, y in points))
    left, bottom, right, top = box.x0 - 3, box.y0 - 3, box.x1 + 3, box.y1 + 3
    em = size/100
    return (f'<svg role="img" aria-label="{html.escape(tex)}" fill="currentColor" '
            f'viewBox="{left:.1f} {-top:.1f} {right - left:.1f} {top - bottom:.1f}" '
            f'style="width:{(right - left)*em:.3f}em;vertical-align:{bottom*em:.3f}em">'
            f'<path d="{"".join(steps)}"/></svg>')


def draw_formulas(text, where):
    "Draw the formulas of a page, which would else be drawn by a script from elsewhere"
    def draw(m):
        tex = ' '.join(html.unescape(m['tex']).split())
        try:
            return f'{m["begin"]}{formula(tex)}</span>'
        except ValueError as e:
            raise SystemExit(f'{where}: matplotlib cannot draw the formula {tex}: {e}')
    text = re.sub(r'(?P<begin><span class="math [^"]*">)\\[(\[](?P<tex>.*?)\\[)\]]</span>', draw,
                  text, flags=re.S)
    return re.sub(r'<(link|script)\b[^>]*/katex@[^>]*>(</script>)?', '', text)


notebook_host = 'notebooks.invalid'  # stands for the site's own copies until the page is written


def kind(module, name):
    "What a name of the reference is, for the search"
    value = getattr(importlib.import_module(module), name.partition('.')[0])
    return 'method' if '.' in name else 'class' if inspect.isclass(value) else 'function'


def base_of_404(cfg):
    "A page that is shown at any address finds its files from the root of the site"
    return ('<script>if (location.protocol !== "file:") document.write("<base href=\\"" + '
            f'(location.pathname.startsWith("{cfg.doc_baseurl}/") ? "{cfg.doc_baseurl}/" : "/") '
            '+ "\\">");</script>')


def offline(site):
    "Take out what the pages would fetch from elsewhere, and refuse what cannot be taken out"
    for css in site.rglob('*.css'):
        text = css.read_text(encoding='utf-8')
        css.write_text(re.sub(r'@import url\("?https?:[^)]*\);?', '', text), encoding='utf-8')
    loads = '<script src="site_libs/fuse/fuse.min.js"></script>'
    shutil.rmtree(site/'site_libs'/'fuse', ignore_errors=True)  # site.js has a search of its own
    shutil.copytree(nbs, site/'notebooks', ignore=lambda _, names: [
        o for o in names if not re.fullmatch(r'\d.*\.ipynb', o)])
    asks = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="?https?:[^>]*>'
                      r'|import \w+ from \'https?:[^\']*\'')
    for file in site.rglob('*.html'):
        text = draw_formulas(file.read_text(encoding='utf-8'), file.name).replace(loads, '')
        text = re.sub(rf'<a href="https://{notebook_host}/', '<a download href="notebooks/', text)
        if file.name == '404.html':  # shown at any address, however deep
            text = text.replace('<head>', f'<head>{base_of_404(get_config())}')
        for found in asks.findall(text):
            raise SystemExit(f'{file.name} would need the network for {found}')
        file.write_text(text, encoding='utf-8')
    entries = json.loads((site/'search.json').read_text(encoding='utf-8'))
    api = {f'{o.page}#{anchor}': kind(o.module, name) for o in rooms() if o.module
           for name, anchor in anchors(o.module).items()}
    for o in entries:
        o['kind'] = api.get(o['href']) or ('section' if o['section'] else 'page')
        o['text'] = o['text'].strip().removeprefix('source ')  # the link beside an entry's name
    index = json.dumps(entries, ensure_ascii=False)
    (site/'search.json').write_text(index, encoding='utf-8')
    (site/'search.js').write_text(f'window.searchEntries = {index};\n', encoding='utf-8')


def build_docs():
    "Build the website; stops with a message if a link leads nowhere"
    os.chdir(root)
    cfg = get_config()
    proc = root/'_proc'
    shutil.rmtree(proc, ignore_errors=True)
    proc.mkdir()
    for name in ('_quarto.yml', 'styles.css', 'favicon.svg', 'site.js'):
        shutil.copy(nbs/name, proc)
    settings = yaml.safe_dump(site_config(cfg), sort_keys=False)
    (proc/'site.yml').write_text(settings, encoding='utf-8')
    entries = {o.page: anchors(o.module) for o in rooms() if o.module}
    for nb in [nbs/'index.ipynb', *[o.path for o in rooms()]]:
        write_nb(page(nb, cfg, entries), proc/Path(page_name(nb.name)).with_suffix('.ipynb').name)
    for name, make in docs_pages.pages.items():
        (proc/name).write_text(make(), encoding='utf-8')
    site = build_site(proc, quiet=True)
    offline(site.out)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(site.out, cfg.doc_path)
    for warning in site.warnings:
        print('warning:', warning)
    print(f'{len(site.pages)} pages; open {cfg.doc_path.name}/index.html')
    if site.broken:
        raise SystemExit('\n'.join(['links that lead nowhere:',
                                    *[f'  {where}: {href}' for where, href in site.broken]]))


if __name__ == '__main__':
    build_docs()
