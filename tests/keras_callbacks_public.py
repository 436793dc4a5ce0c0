"""Callbacks of the kind that people publish for Keras, written against a module `K` of Keras

`K` is `fastloop.keras` or an installed Keras 3: the code is the same, and `seen` holds what a
callback has found, so that the two can be compared.
"""
import math
import os
from types import SimpleNamespace

import numpy as np


def make(K):
    "The classes, on top of `K.callbacks.Callback`"
    Base, backend = K.callbacks.Callback, K.backend
    if not hasattr(backend, 'get_value'):  # today's Keras: variables do it themselves
        backend = SimpleNamespace(get_value=lambda v: v.numpy(),
                                  set_value=lambda v, to: v.assign(to))
    def rate(model): return float(backend.get_value(model.optimizer.learning_rate))

    class CyclicLR(Base):
        "The rate goes up and down between two bounds"
        def __init__(self, base=.01, top=.2, step=5):
            super().__init__()
            self.base, self.top, self.step, self.seen = base, top, step, []

        def clr(self):
            cycle = math.floor(1 + self.done/(2*self.step))
            x = abs(self.done/self.step - 2*cycle + 1)
            return self.base + (self.top-self.base)*max(0, 1-x)

        def on_train_begin(self, logs=None):
            self.done = 0
            self.model.optimizer.learning_rate = self.base

        def on_train_batch_end(self, batch, logs=None):
            self.done += 1
            self.seen.append((rate(self.model), int(self.model.optimizer.iterations)))
            self.model.optimizer.learning_rate = self.clr()

    class WarmUpCosine(Base):
        "The rate rises for some batches, then falls along a cosine"
        def __init__(self, top=.2, warm=4):
            super().__init__()
            self.top, self.warm, self.seen, self.done = top, warm, [], 0

        def on_train_batch_begin(self, batch, logs=None):
            total = self.params['epochs']*self.params['steps']
            share = (self.done-self.warm)/(total-self.warm)
            now = self.top*self.done/self.warm if self.done < self.warm else \
                self.top*.5*(1+math.cos(math.pi*share))
            self.model.optimizer.learning_rate.assign(now)
            self.seen.append(rate(self.model))
            self.done += 1

    class SGDR(Base):
        "Warm restarts; the best weights of all cycles are put back in the end"
        def __init__(self, top=.3, low=.001, cycle=2):
            super().__init__()
            self.top, self.low, self.cycle = top, low, cycle
            self.since, self.best, self.kept, self.seen = 0, np.inf, None, []

        def on_epoch_begin(self, epoch, logs=None):
            share = self.since/self.cycle
            now = self.low + .5*(self.top-self.low)*(1+np.cos(np.pi*share))
            backend.set_value(self.model.optimizer.learning_rate, now)

        def on_epoch_end(self, epoch, logs=None):
            logs['lr'] = rate(self.model)
            self.seen.append(logs['lr'])
            if logs['val_loss'] < self.best:
                self.best, self.kept = logs['val_loss'], self.model.get_weights()
            self.since += 1
            if self.since >= self.cycle: self.since, self.cycle = 0, self.cycle*2

        def on_train_end(self, logs=None):
            self.model.set_weights(self.kept)

    class LRFinder(Base):
        "The rate rises until the loss explodes; the weights come back from a file"
        def __init__(self, path, low=1e-4, high=10., steps=24):
            super().__init__()
            self.path, self.low, self.steps = str(path), low, steps
            self.factor, self.done, self.seen = (high/low)**(1/steps), 0, []

        def on_train_begin(self, logs=None):
            self.before = rate(self.model)
            self.model.save_weights(self.path)
            backend.set_value(self.model.optimizer.learning_rate, self.low)

        def on_train_batch_end(self, batch, logs=None):
            now = rate(self.model)
            self.seen.append(now)
            self.done += 1
            if self.done >= self.steps: self.model.stop_training = True
            backend.set_value(self.model.optimizer.learning_rate, now*self.factor)

        def on_train_end(self, logs=None):
            self.model.load_weights(self.path)
            backend.set_value(self.model.optimizer.learning_rate, self.before)
            os.remove(self.path)

    class OneCycle(Base):
        "Rate up and momentum down, then back"
        def __init__(self, top=.2, moms=(.95, .85)):
            super().__init__()
            self.top, self.moms, self.seen, self.done = top, moms, [], 0

        def on_train_batch_begin(self, batch, logs=None):
            half = self.params['epochs']*self.params['steps']/2
            share = 1 - abs(self.done/half - 1)
            self.model.optimizer.learning_rate = self.top*(.1 + .9*share)
            if hasattr(self.model.optimizer, 'momentum'):
                self.model.optimizer.momentum = self.moms[0] + (self.moms[1]-self.moms[0])*share
            self.seen.append((rate(self.model), float(self.model.optimizer.momentum)))
            self.done += 1

    class Bar(Base):
        "A bar that is made when the number of batches is known; its hook comes late"
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_epoch_begin(self, epoch, logs=None):
            self.bar = SimpleNamespace(total=self.params['steps'], n=0)
            self.on_train_batch_end = self.update

        def update(self, batch, logs=None):
            self.bar.n, self.bar.postfix = self.bar.n+1, {k: f'{v:.2f}' for k, v in logs.items()}

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((self.bar.n, self.bar.total, 'loss' in self.bar.postfix))

    class ConfusionMatrix(Base):
        "Which class is taken for which, after each epoch"
        def __init__(self, x, y):
            super().__init__()
            self.x, self.y, self.seen = x, y, []

        def on_epoch_end(self, epoch, logs=None):
            guess = np.argmax(self.model.predict(self.x, verbose=0), axis=1)
            matrix = np.zeros((3, 3), int)
            np.add.at(matrix, (self.y, guess), 1)
            self.seen.append(matrix)

    class F1Score(Base):
        "A number that is added to the logs for those that come after it"
        def __init__(self, x, y):
            super().__init__()
            self.x, self.y, self.seen = x, y, []

        def on_epoch_end(self, epoch, logs=None):
            guess = self.model.predict(self.x, batch_size=64, verbose=0).argmax(-1)
            scores = [2*np.sum((guess == c) & (self.y == c))/max(1, np.sum(guess == c) + np.sum(
                self.y == c)) for c in range(3)]
            logs['val_f1'] = float(np.mean(scores))
            self.seen.append(logs['val_f1'])

    class SWA(Base):
        "The mean of the weights of the last epochs"
        def __init__(self, start=2):
            super().__init__()
            self.start, self.count = start, 0

        def on_epoch_end(self, epoch, logs=None):
            if epoch < self.start: return
            now = self.model.get_weights()
            if not self.count: self.mean = now
            else: self.mean = [(m*self.count + w)/(self.count+1) for m, w in zip(self.mean, now)]
            self.count += 1

        def on_train_end(self, logs=None):
            self.model.set_weights(self.mean)
            self.seen = [self.count]

    class EMA(Base):
        "A moving average of the weights, which is what gets validated"
        def __init__(self, decay=.9):
            super().__init__()
            self.decay, self.seen = decay, []

        def on_train_begin(self, logs=None): self.average = self.model.get_weights()

        def on_train_batch_end(self, batch, logs=None):
            for a, w in zip(self.average, self.model.get_weights()): a += (w-a)*(1-self.decay)

        def on_test_begin(self, logs=None):
            self.kept = self.model.get_weights()
            self.model.set_weights(self.average)

        def on_test_end(self, logs=None):
            self.seen.append(logs['loss'])
            self.model.set_weights(self.kept)

    class Webhook(Base):
        "Sends a message when it begins, after every so many epochs, and when it ends"
        def __init__(self, send, every=2):
            super().__init__()
            self.send, self.every, self.seen = send, every, []

        def on_train_begin(self, logs=None):
            self.send({'text': f'{self.params["epochs"]} epochs'})

        def on_epoch_end(self, epoch, logs=None):
            if epoch % self.every == 0:
                lines = [f'{k}: {v:.3f}' for k, v in sorted(logs.items())]
                self.send({'text': f'epoch {epoch+1}: ' + ', '.join(lines)})
            self.seen.append(sorted(logs))

        def on_train_end(self, logs=None): self.send({'text': f'done: {sorted(logs or {})}'})

    class TimeLimit(Base):
        "Stops when the time is up, in the middle of an epoch"
        def __init__(self, clock, seconds=10):
            super().__init__()
            self.clock, self.seconds, self.seen, self.stopped_epoch = clock, seconds, [], 0

        def on_train_begin(self, logs=None): self.until = self.clock() + self.seconds

        def on_train_batch_end(self, batch, logs=None):
            if self.clock() < self.until: return
            self.model.stop_training, self.stopped_epoch = True, self.epoch
            self.seen.append((self.epoch, batch))

        def on_epoch_begin(self, epoch, logs=None): self.epoch = epoch

    class WeightDecayByHand(Base):
        "Shrinks the trainable variables after every batch, by their variables"
        def __init__(self, share=.01):
            super().__init__()
            self.share = share

        def on_train_batch_end(self, batch, logs=None):
            for v in self.model.trainable_variables:
                if len(v.shape) > 1: v.assign(v.numpy()*(1-self.share))

        def on_train_end(self, logs=None):
            self.seen = [sorted(map(tuple, (v.shape for v in self.model.trainable_variables)))]

    class LayerStats(Base):
        "The size of the weights of each layer"
        def on_train_begin(self, logs=None): self.seen = []

        def on_epoch_end(self, epoch, logs=None):
            found = [[float(np.abs(w).mean()) for w in layer.get_weights()]
                     for layer in self.model.layers]
            self.seen.append([o for o in found if o])

    class StopAtAccuracy(Base):
        "Stops when a number is good enough"
        def __init__(self, name='val_accuracy', value=.5):
            super().__init__()
            self.name, self.value, self.seen = name, value, []

        def on_epoch_end(self, epoch, logs={}):  # noqa: B006  as it is published
            self.seen.append(logs.get(self.name) >= self.value)
            if logs.get(self.name) >= self.value: self.model.stop_training = True

    class CallsModel(Base):
        "Asks the model itself, and says what it is made of"
        def __init__(self, x):
            super().__init__()
            self.x, self.seen = x, []

        def on_train_begin(self, logs=None):
            sizes = self.model.input_shape, self.model.output_shape
            self.seen.append([o[-1] for o in sizes])

        def on_epoch_end(self, epoch, logs=None):
            for answer in (self.model(self.x, training=False), self.model(self.x)):
                self.seen.append(float(answer.detach().sum(0)[0]))
            self.seen.append(float(self.model.predict_on_batch(self.x).sum(0)[0]))
            for o in (self.model, self.model.layers[-1]):
                self.seen.append([len(o.trainable_weights), len(o.non_trainable_weights)])

    return SimpleNamespace(**{k: v for k, v in locals().items() if isinstance(v, type)})
