# ruff: noqa
# %% 1: whatever Python can read
def rate(text): return float(text)

# %% 1: `0 < found < float('inf')` → `0 < found`

# %% 1: `0 < found < float('inf')` → `not (found <= 0 or found == float('inf'))`

# %% 1: `return found` → `return text`

# %% 1: the reason alone
def rate(text):
    try: found = float(text)
    except ValueError: raise argparse.ArgumentTypeError('a number is wanted') from None
    if 0 < found < float('inf'): return found
    raise argparse.ArgumentTypeError('a rate is above 0 and finite')

# %% 1: no whole program for one wrong word
def rate(text):
    assert 0 < float(text) < float('inf'), f'{text} is no rate'
    return float(text)

# %% 2: every error is told
def status_of(work):
    try: work()
    except KeyboardInterrupt: return 130
    except Exception as e:
        print(e, file=sys.stderr)
        return 1
    return 0

# %% 2: Ctrl-C is no Exception
def status_of(work):
    try: work()
    except (ValueError, OSError) as e:
        print(e, file=sys.stderr)
        return 130 if isinstance(e, KeyboardInterrupt) else 1
    return 0

# %% 2: `, file=sys.stderr` → ``

# %% 2: `        print(e, file=sys.stderr)` → ``

# %% 2: `return 130` → `sys.exit(130)`

# %% 2: `    return 0` → ``

# %% 2: `(ValueError, OSError)` → `ValueError`

# %% 3: imported where imports stand
def main_of(argv):
    import heavy
    parser = argparse.ArgumentParser(prog='own')
    commands = parser.add_subparsers(required=True)
    commands.add_parser('count').add_argument('n', type=_positive)
    heavy.count(parser.parse_args(argv).n)
    return 0

# %% 3: `type=_positive` → `type=int`

# %% 3: `required=True` → ``

# %% 3: the number is looked at too late
def main_of(argv):
    import heavy
    if len(argv) != 2 or argv[0] != 'count': sys.exit(2)
    if int(argv[1]) < 1: sys.exit(2)
    heavy.count(int(argv[1]))
    return 0

# %% 3: by their places
def main_of(argv):
    command, n = argv
    n = _positive(n)
    import heavy
    heavy.count(n)
    return 0

# %% 3: `    return 0` → ``
