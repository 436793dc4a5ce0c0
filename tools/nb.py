"""Work on notebooks as text: `nb.py twin NAME`, edit `.twins/NAME.py`, then `nb.py build NAME`.

`build` copies the twin (if there is one) into the notebook, runs the notebook from top to bottom,
stores its outputs, cleans it and exports its module. Without names it builds every notebook.
"""
import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

root = Path(__file__).resolve().parent.parent
nbs, twins = root/'nbs', root/'.twins'
bin_dir = Path(sys.executable).parent


def notebook(name):
    "The notebook called `name`, with or without its suffix"
    return nbs/f"{name.removesuffix('.ipynb').removesuffix('.py')}.ipynb"


def jupytext(*args):
    subprocess.run([bin_dir/'jupytext', '--quiet', *args], check=True)


def twin(nb):
    "Write the percent-format twin of `nb`"
    twins.mkdir(exist_ok=True)
    if nb.exists():
        jupytext('--to', 'py:percent', '--opt', 'notebook_metadata_filter=kernelspec',
                 '-o', str(twins/f'{nb.stem}.py'), str(nb))
    return twins/f'{nb.stem}.py'


def execute(nb):
    "Run `nb` in a kernel of its own and keep what it prints"
    import nbformat
    from nbclient import NotebookClient
    doc = nbformat.read(nb, as_version=4)
    os.environ['FASTLOOP_PROGRESS'] = 'plain'  # no moving bars in stored output
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # as in the tests; more only wait for each other
    client = NotebookClient(doc, timeout=600, kernel_name='python3', coalesce_streams=True,
                            resources={'metadata': {'path': str(nbs)}})
    client.execute()
    doc.metadata = nbformat.from_dict({'kernelspec': {
        'display_name': 'python3', 'language': 'python', 'name': 'python3'}})
    nbformat.write(doc, nb)


def export(*notebooks):
    "Export the modules of some notebooks, one export at a time"
    from nbdev.config import get_config
    from nbdev.doclinks import _build_modidx
    from nbdev.export import add_init, nb_export
    os.environ.pop('IN_TEST', None)  # it turns exporting off
    os.chdir(root)
    name = f'fastloop-export-{zlib.crc32(bytes(root))}.lock'  # each checkout has its own
    with open(Path(tempfile.gettempdir())/name, 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for nb in notebooks: nb_export(nb, get_config().lib_path)
        add_init(get_config().lib_path)
        _build_modidx()


def build(nb):
    text = twins/f'{nb.stem}.py'
    if text.exists() and (not nb.exists() or text.stat().st_mtime > nb.stat().st_mtime):
        jupytext(*(['--update'] if nb.exists() else []), '--to', 'ipynb', '-o', str(nb), str(text))
    export(nb)  # later cells of the notebook may import what it exports
    execute(nb)
    subprocess.run([bin_dir/'nbdev_clean', '--fname', str(nb)], check=True, cwd=root)
    size = nb.stat().st_size/1000
    print(f'{nb.name}: {size:.0f} kB' + (' TOO LARGE' if size > 300 else ''))


def main():
    "Parse the command line and do what it says"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('action', choices=['twin', 'build', 'export'])
    parser.add_argument('names', nargs='*', help='notebooks; all of them if none is given')
    args = parser.parse_args()
    notebooks = [notebook(o) for o in args.names] or sorted(nbs.glob('*.ipynb'))
    if args.action == 'export': return export(*notebooks)
    for nb in notebooks: {'twin': twin, 'build': build}[args.action](nb)


if __name__ == '__main__':
    main()
