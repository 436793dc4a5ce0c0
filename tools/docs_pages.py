"""Pages of the site that no notebook holds: they are written from the package and from other files.

Each function gives the Markdown of one page. `tools/docs.py` builds them with the notebooks.
"""
import importlib
import inspect
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
if str(root) not in sys.path:
    sys.path.insert(0, str(root))
from tools.readme import settings, short_runs, tested  # noqa: E402
from tools.rooms import rooms  # noqa: E402

# how a callback is attached where its name and brackets alone do not show it
examples = {
    'Callback': 'class Hello(Callback): ...',
    'AvgStatsCallback': 'Runner(AvgStatsCallback([accuracy])).fit(1, learn)',
    'TrainEvalCallback': 'Runner(TrainEvalCallback()).fit(1, learn)',
    'Recorder': 'Runner(Recorder(metrics=[accuracy])).fit(1, learn)',
    'ProgressCallback': "learn.fit(1, cbs=ProgressCallback(mode='plain'))",
    'ParamScheduler': "learn.fit(3, cbs=ParamScheduler('lr', sched_cos(1e-3, 1e-5)))",
    'OneCycleScheduler': 'learn.fit(3, cbs=OneCycleScheduler(lr_max=1e-2))',
    'GeneralScheduler': ('learn.fit(3, cbs=GeneralScheduler('
                         "phases=[TrainingPhase(100).schedule_hp('lr', 1e-2)]))"),
    'TorchScheduler': ('learn.fit(3, cbs=TorchScheduler(make=partial('
                       'lr_scheduler.StepLR, step_size=1)))'),
    'LRFinder': 'learn.fit(2, cbs=LRFinder(num_it=50))',
    'TrackerCallback': "learn.fit(3, cbs=TrackerCallback(monitor='accuracy'))",
    'EarlyStoppingCallback': 'learn.fit(20, cbs=EarlyStoppingCallback(patience=3))',
    'ReduceLROnPlateauCallback': 'learn.fit(20, cbs=ReduceLROnPlateauCallback(patience=2))',
    'SaveModelCallback': "learn.fit(5, cbs=SaveModelCallback(monitor='accuracy'))",
    'CSVLogger': "learn.fit(3, cbs=CSVLogger(filename='history'))",
    'LambdaCallback': "learn.fit(1, cbs=LambdaCallback(after_epoch=lambda: print('done')))",
    'RemoteMonitor': "learn.fit(3, cbs=RemoteMonitor(root='http://localhost:9000'))",
    'MLflowCallback': "learn.fit(3, cbs=MLflowCallback(experiment='shoes'))",
    'TensorBoardCallback': "learn.fit(3, cbs=TensorBoardCallback(log_dir='logs'))",
    'WandbCallback': "learn.fit(3, cbs=WandbCallback(project='shoes'))",
    'GradientClipping': 'learn.fit(3, cbs=GradientClipping(clip=0.5))',
    'GradientAccumulation': 'learn.fit(3, cbs=GradientAccumulation(n_batches=4))',
    'MixUpCallback': 'learn.fit(3, cbs=MixUpCallback(alpha=0.4))',
    'CutMix': 'learn.fit(3, cbs=CutMix(alpha=1.0))',
    'MixedPrecision': 'learn.fit(3, cbs=MixedPrecision(dtype=torch.bfloat16))',
    'ShortEpoch': 'learn.fit(1, cbs=ShortEpoch(pct=0.1))',
    'StopAfterNBatches': 'learn.fit(1, cbs=StopAfterNBatches(n_batches=2))',
    'EMACallback': 'learn.fit(3, cbs=EMACallback(decay=0.99))',
    'CheckpointCallback': "learn.fit(3, cbs=CheckpointCallback(every='epoch'))",
    'CallbackHandler': 'learn.fit(1, cbs=CallbackHandler([LearnerCallback(learn)]))',
    'LearnerCallback': 'class Hello(LearnerCallback): ...',
    'BaseSchedCB': ('learn.fit(3, cbs=BaseSchedCB('
                    'partial(lr_scheduler.StepLR, step_size=1)))'),
    'BatchSchedCB': ('learn.fit(3, cbs=BatchSchedCB('
                     'partial(lr_scheduler.StepLR, step_size=1)))'),
    'EpochSchedCB': ('learn.fit(3, cbs=EpochSchedCB('
                     'partial(lr_scheduler.StepLR, step_size=1)))'),
    'BatchTransformCB': 'learn.fit(3, cbs=BatchTransformCB(lambda batch: batch))',
    'BatchTransformXCallback': 'learn.fit(3, cbs=BatchTransformXCallback(lambda xb: xb*2))',
    'keras.callbacks.Callback': 'class Hello(keras.callbacks.Callback): ...',
    'keras.callbacks.EarlyStopping': 'EarlyStopping(patience=3, restore_best_weights=True)',
    'keras.callbacks.ReduceLROnPlateau': 'ReduceLROnPlateau(factor=0.2, patience=2)',
    'keras.callbacks.ModelCheckpoint': "ModelCheckpoint('best.keras', save_best_only=True)",
    'keras.callbacks.BackupAndRestore': "BackupAndRestore('backup')",
    'keras.callbacks.LearningRateScheduler': ('LearningRateScheduler('
                                              'lambda epoch, lr: lr*0.9)'),
    'keras.callbacks.CSVLogger': "CSVLogger('log.csv')",
    'keras.callbacks.RemoteMonitor': "RemoteMonitor(root='http://localhost:9000')",
    'keras.callbacks.LambdaCallback': 'LambdaCallback(on_epoch_end=lambda epoch, log: print(log))',
    'keras.callbacks.TensorBoard': "TensorBoard(log_dir='logs')",
}


def docs():
    "The module that builds the site; it imports this one"
    return importlib.import_module('tools.docs')


def classes():
    "Every public class of the package: module, name, class"
    importlib.import_module('fastloop.all')
    for module in [o.module for o in rooms() if o.module]:
        for name in docs().exported(module):
            value = getattr(importlib.import_module(module), name)
            if inspect.isclass(value):
                yield module, name, value


def callbacks():
    "Every public callback: module, name as a user writes it, class"
    native = importlib.import_module('fastloop.callback.core').Callback
    keras = importlib.import_module('fastloop.keras.callbacks').Callback
    for module, name, value in classes():
        if issubclass(value, (keras, native)):
            prefix = 'keras.callbacks.' if module == keras.__module__ else ''
            yield module, f'{prefix}{name}', value


def example(name):
    "A line that uses a callback"
    short = name.removeprefix('keras.callbacks.')
    line = examples.get(name, f'{short}()' if short != name else f'learn.fit(3, cbs={name}())')
    called = short != name and line.startswith(short)
    return f'model.fit(x, y, callbacks=[keras.callbacks.{line}])' if called else line


def front(title, promise):
    "What stands above a page"
    return f'---\ntitle: "{title}"\ndescription: "{promise}"\n---\n'


def cell(text):
    "Text for a cell of a table"
    return text.replace('|', r'\|').replace('\n', ' ')


def link(module, name):
    "A link to the entry of a name"
    anchor = docs().anchors(module)[name]
    return f'[`{name}`](/{docs().page_of(module)}#{anchor})'


def all_callbacks():
    "The page with every callback"
    parts, part = [front('All callbacks', 'What each one does, and a line that uses it'),
                   'Attach one for all fits with `Learner(…, cbs=[…])`, or for one fit with '
                   '`learn.fit(…, cbs=[…])`. Two tables: the callbacks of this library, and '
                   'those under the names of Keras, which run on the same loop. To write one, '
                   'see [Events and callbacks](/callback.core.html).'], None
    for module, name, value in callbacks():
        title = 'Under the names of Keras' if name.startswith('keras.') else 'Callbacks'
        if title != part:
            part = title
            parts.append(f'\n## {title}\n\n|Name|What it does, and how to use it|\n|:--|:--|')
        says = docs().summary(value)
        shown = f'{cell(says)}<br>`{cell(example(name))}`'
        parts.append(f'|{link(module, value.__name__)}|{shown}|')
    return '\n'.join(parts)


def all_names():
    "The page with every public name"
    parts = [front('All names', 'Every public name, with a line and a link to its entry')]
    importlib.import_module('fastloop.all')
    for room in [o for o in rooms() if o.module]:
        found = docs().exported(room.module)
        if not found:
            continue
        parts.append(f'\n## [{room.title}](/{room.page}) {{#{slug(room.module)}}}\n\n'
                     f'`{room.module}`\n\n|Name|What it is|\n|:--|:--|')
        for name in found:
            value = getattr(importlib.import_module(room.module), name)
            told = docs().summary(value) if inspect.isclass(value) or callable(value) else ''
            parts.append(f'|{link(room.module, name)}|{cell(told)}|')
            if inspect.isclass(value) and (own := docs().public_members(value)):
                links = [f'[`{o}`](/{room.page}#{docs().anchors(room.module)[f"{name}.{o}"]})'
                         for o in own]
                parts.append(f'||{" · ".join(links)}|')
    return '\n'.join(parts)


def slug(module):
    "An anchor that no other page's name has"
    return 'module-' + re.sub(r'\W', '-', module)


def performance():
    "The page with the benchmark's tables"
    text = (root/'benchmarks'/'README.md').read_text(encoding='utf-8')
    text = re.sub(r'<!--.*?-->\n*', '', text).partition('\n')[2]
    base = f'{settings()["git_url"]}/blob/{settings()["branch"]}'
    text = re.sub(r'\]\((?!https?:|#|\.\./)', f']({base}/benchmarks/', text)
    text = text.replace('](../', f']({base}/').replace(' ×', '\u00a0×')  # no line break
    return front('Performance', 'What the loop costs beside one written by hand') + text


def versions():
    "The page that says which versions were tested, and what changed"
    rows = '\n'.join(f'|{name}|{version}|' for name, version in tested().items())
    news = (root/'CHANGELOG.md').read_text(encoding='utf-8').partition('\n## ')[2]
    news = re.sub(r'^#', '##', f'## {news}', flags=re.M)
    return (front('Versions', 'What this version was tested with, and what has changed')
            + f'These pages describe fastloop {settings()["version"]}. Its tests ran with the '
            f'versions below. {short_runs()}\n\n## Tested with\n\n'
            f'|Package|Version|\n|:--|:--|\n{rows}\n\n## What has changed\n\n{news}')


def missing():
    "The page that stands where none is"
    return (front('There is no such page', 'It may have another name now')
            + 'The address is wrong, or the page has another name now. The search box above '
            'finds names and words; [All names](/reference.html) lists what there is, and '
            '[Home](/index.html) is where the course begins.')


pages = {'callbacks.md': all_callbacks, 'reference.md': all_names, 'performance.md': performance,
         'versions.md': versions, '404.md': missing}
