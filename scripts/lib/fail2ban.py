"""Asks a Fail2Ban that runs through its socket, and looks into its database: prints JSON.

    python3 -IS fail2ban.py '{"uses": "regular expression", "config_dir": "/etc/fail2ban"}'

Why not fail2ban-client: it prints texts for people, in which names are joined by commas and moments
are in the local time of another process. Here answers stay data. Nothing but the standard library is
needed, so that a Fail2Ban in a container can be asked as well.

The question: socket, config_dir and database (all optional: where they are), and one of
  uses     for the jails with an action whose `actionban` matches: their actions and bans
  about    for every ban of an address, or of all if it is a range, with the log lines
  unban    to free an address in all jails, and `others`: an ID in a jail each
The answer is explained in fail2ban.ts. It ends with 75 and {"failure": why} if there is none.
"""
import io, json, os, pickle, re, shlex, socket, stat, struct, sys, time

END = b'<F2B_END_COMMAND>'
CLOSE = b'<F2B_CLOSE_COMMAND>'
# Seconds: for an answer, which waits while a command of somebody else's is executed, and for a row
# of the database, which another thread of Fail2Ban writes after the ban.
PATIENCE = {'ask': 10, 'unban': 60, 'row': 0.4}
DEFAULT = {'socket': '/var/run/fail2ban/fail2ban.sock', 'dbfile': '/var/lib/fail2ban/fail2ban.sqlite3'}
# Fail2Ban's own `%s \t%s + %d = %s`; an ID may be any text.
LISTED = re.compile(r'(.*) \t\S+ \S+ \+ (-?\d+) = \S+ \S+', re.DOTALL)


class Failure(Exception):
    """No answer at all."""


class Refused(Exception):
    """An error answer to one question."""


class Foreign:
    """Stands for an object of any other class: what a pickle would construct is not constructed."""
    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        pass

    def __str__(self):
        return ' '.join(map(str, self.args))


class Plain(pickle.Unpickler):
    def find_class(self, module, name):
        # Fail2Ban sends its addresses as str(text).
        return str if (module, name) == ('builtins', 'str') else Foreign


class Server:
    def __init__(self, path, patience):
        if is_asleep(path):
            raise Failure('it does not run (systemd would start it)')
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(patience)
        try:
            self.socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise Failure('it does not run (no answer at "%s")' % path)
        credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid = struct.unpack('3i', credentials)[0]

    def ask(self, *words):
        self.socket.sendall(pickle.dumps(list(words), 2) + END)
        answer = bytearray()
        while not answer.endswith(END):
            piece = self.socket.recv(262144)
            if not piece:
                raise Failure('it has ended')
            answer += piece
        code, value = Plain(io.BytesIO(answer[:-len(END)])).load()
        if code != 0:
            raise Refused('it answers "%s" to "%s"' % (value, ' '.join(words)))
        return value

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.socket.sendall(CLOSE + END)
        except OSError:
            pass

    def process(self):
        """Of the server: whoever bound the socket, unless systemd did."""
        if self.pid > 1:
            return self.pid
        own = [pid for pid in processes() if read('/proc/%d/comm' % pid) == 'fail2ban-server\n']
        return own[0] if len(own) == 1 else None

    def instance(self):
        """Tells this Fail2Ban from any before it, whatever the clock does: each makes its socket anew."""
        socket = os.stat(self.path)
        return '%d.%d' % (socket.st_ino, socket.st_mtime_ns)

    def started(self, jail=None):
        """When it was started, or the jail was. Fail2Ban names its threads: `f2b/a.sshd`."""
        pid = self.process()
        tasks = ['/proc/%d' % pid] if pid else []
        if jail is not None and pid:
            name = ('f2b/a.' + jail).encode()[:15].decode('utf-8', 'replace') + '\n'
            every = ['/proc/%d/task/%s' % (pid, task) for task in listed('/proc/%d/task' % pid)]
            tasks = [task for task in every if read(task + '/comm') == name]
        moments = [moment for moment in map(began, tasks) if moment]
        return max(moments) if moments else os.stat(self.path).st_mtime


def is_asleep(path):
    """True if only systemd listens there: a connection would start Fail2Ban (fail2ban.socket)."""
    lines = [line.split() for line in read('/proc/net/unix').splitlines()[1:]]
    wanted = os.path.realpath(path)
    inodes = {'socket:[%s]' % line[6] for line in lines
              if len(line) == 8 and line[3] == '00010000' and os.path.realpath(line[7]) == wanted}
    if not inodes or not holds(1, inodes):
        return False
    return not any(holds(pid, inodes) for pid in processes() if pid != 1)


def holds(pid, links):
    folder = '/proc/%d/fd' % pid
    for name in listed(folder):
        try:
            if os.readlink('%s/%s' % (folder, name)) in links:
                return True
        except OSError:
            pass
    return False


def processes():
    return [int(name) for name in listed('/proc') if name.isdigit()]


def listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read(path):
    try:
        with open(path, errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def began(task):
    """When a process or thread was started, epoch seconds (proc(5), field 22 of stat)."""
    fields = read(task + '/stat').rpartition(')')[2].split()
    if len(fields) < 20:
        return None
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf('SC_CLK_TCK')
    return time.time() - ago


def configured(directory, option):
    """What fail2ban.conf and the files over it say."""
    import configparser
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    for kind in ('conf', 'local'):
        parts = sorted(listed(directory + '/fail2ban.d'))
        own = [directory + '/fail2ban.d/' + part for part in parts if part.endswith('.' + kind)]
        for file in [directory + '/fail2ban.' + kind] + own:
            try:
                parser.read(file, 'utf-8')
            except (OSError, ValueError, configparser.Error):
                pass
    return parser.get('Definition', option, fallback=None) or DEFAULT[option]


def resolve(text, properties, family):
    """Puts properties in the place of their tags, as Fail2Ban does; those of a ban stay tags."""
    known = {**properties, 'br': '\n', 'sp': ' '}

    def value(match):
        tag = match.group(1)
        own = known.get('%s?family=%s' % (tag, family), known.get(tag))
        return match.group() if own is None else str(own)

    for _ in range(25):
        before, text = text, re.sub(r'<([^ <>]+)>', value, text)
        if text == before:
            break
    return text


def words_of(text):
    """What a shell would make of it; separators of commands are words of their own."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=';&|()\n')
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ' \t\r', True, ''
    try:
        return list(lexer)
    except ValueError:
        return None


def action_of(server, jail, name):
    """None if it is an action in Python, which has no commands."""
    if 'actionban' not in server.ask('get', jail, 'actionproperties', name):
        return None
    # One question for all of them, and for none that there is not: that would be logged as an error.
    properties = server.ask('get', jail, 'action', name, '_properties')
    commands = {command: {family: resolve('<%s>' % command, properties, family)
                          for family in ('inet4', 'inet6')}
                for command in ('actionstart', 'actionban')}
    return {
        'name': name,
        'actionban': commands['actionban']['inet4'],
        'ban': {family: words_of(text) for family, text in commands['actionban'].items()},
        'start': {family: words_of(text) for family, text in commands['actionstart'].items()},
        'properties': {key: value for key, value in properties.items() if isinstance(value, str)
                       and not key.startswith('action')},
    }


def live_bans(server, jail):
    """ID and seconds of each."""
    found = [LISTED.fullmatch(line) for line in server.ask('get', jail, 'banip', '--with-time')]
    if None in found:
        raise Refused('it lists bans in a way that is not understood')
    return {match.group(1): int(match.group(2)) for match in found}


class Database:
    """Fail2Ban's, as far as we reach it: one in a container may be out of our sight."""
    def __init__(self, path, seen=()):
        """Opens what a path of the server's is, or the first that is there of those that it may be."""
        self.connection = None
        self.path = path
        path = next((each for each in [*seen, path] if os.path.isabs(path) and os.path.exists(each)),
                    None)
        if path is None:
            return
        import sqlite3
        import urllib.parse
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise Failure('its database "%s" is no file' % self.path)
            address = 'file:%s?mode=ro' % urllib.parse.quote(path)
            self.connection = sqlite3.connect(address, uri=True, timeout=5)
            self.connection.text_factory = lambda data: data.decode('utf-8', 'replace')
            self.connection.execute('SELECT count(*) FROM sqlite_master')
        except (OSError, sqlite3.Error) as error:
            raise Failure('its database "%s" cannot be read: %s' % (self.path, error))

    def rows(self, jail, with_matches=False):
        """By ID, in the order in which Fail2Ban restores them."""
        if self.connection is None:
            return {}
        import sqlite3
        try:
            return self.read(jail, with_matches)
        except sqlite3.Error as error:
            raise Failure('its database "%s" cannot be read: %s' % (self.path, error))

    def jails(self):
        if self.connection is None:
            return []
        return [jail for jail, in self.connection.execute('SELECT DISTINCT jail FROM bips')]

    def read(self, jail, with_matches):
        question = 'SELECT ip, timeofban, bantime, bancount, data FROM bips WHERE jail = ? ORDER BY ip'
        rows = {}
        for ip, moment, seconds, times, data in self.connection.execute(question, (jail,)):
            known = data_of(data) if with_matches or b'"ip"' in as_bytes(data) else {}
            rows[ip] = {'began': moment, 'seconds': seconds, 'times': times,
                        'ip': known.get('ip', ip), 'matches': known.get('matches', [])}
        return rows


def as_bytes(data):
    return data.encode() if isinstance(data, str) else data or b''


def data_of(data):
    try:
        known = json.loads(as_bytes(data).decode('utf-8', 'replace'))
        return known if isinstance(known, dict) else {}
    except ValueError:
        return {}


def is_about(row, seconds, now):
    """True if a row is about the ban of so many seconds that runs now, not about an older one."""
    if row is None:
        return False
    ends = [row['began'] + length if length >= 0 else now + 1 for length in (row['seconds'], seconds)]
    return min(ends) > now - 2


def bans_of(server, database, jail, with_matches=False):
    """What runs, and what is stored and may be restored yet."""
    live = live_bans(server, jail)
    rows = database.rows(jail, with_matches)
    end = time.time() + PATIENCE['row']
    while database.connection and time.time() < end and not all(
            is_about(rows.get(each), seconds, time.time()) for each, seconds in live.items()):
        time.sleep(0.05)
        rows = database.rows(jail, with_matches)
    now = time.time()
    bans = []
    for each, seconds in live.items():
        row = rows.get(each)
        known = row if is_about(row, seconds, now) else None
        bans.append({'id': each, 'ip': row and row['ip'], 'seconds': seconds,
                     'began': known and known['began'], **more(row, with_matches)})
    return bans, rows


def more(row, with_matches):
    if not with_matches or row is None:
        return {}
    lines = [''.join(map(str, line)) if isinstance(line, list) else str(line)
             for line in row['matches'] or []]
    return {'times': row['times'], 'matches': lines}


def waiting_of(server, jail, rows, bans):
    """
    Stored bans that Fail2Ban may be about to restore, and how far in its database it has come.

    It does so one by one, in the order of its database, after the start of the jail. What it has
    passed over is not to come; what a jail's ban time has no room for any more neither.
    """
    started = server.started(jail)
    live = {ban['id'] for ban in bans}
    old = [each for each, row in rows.items() if row['began'] <= started + 1]
    restored = [place for place, each in enumerate(old) if each in live]
    rest = old[restored[-1] + 1:] if restored else old
    come = len(old) - len(rest)
    if not rest:
        return started, come, []
    length = server.ask('get', jail, 'bantime')
    longest = server.ask('get', jail, 'bantime.maxtime') if server.ask(
        'get', jail, 'bantime.increment') else length
    now = time.time()
    waiting = []
    for each in rest:
        row = rows[each]
        seconds = length if row['seconds'] == -2 else row['seconds']
        if longest is not None and longest >= 0 and (seconds < 0 or seconds > longest):
            seconds = longest
        if seconds < 0 or row['began'] + seconds > now:
            waiting.append({'id': each, 'ip': row['ip'], 'seconds': seconds, 'began': row['began']})
    return started, come, waiting


def jail_of(server, database, uses, name):
    jail = {'name': name, 'actions': [], 'bans': [], 'waiting': []}
    try:
        names = server.ask('get', name, 'actions')
    except Refused as error:
        return {**jail, 'error': str(error)}
    for each in names:
        try:
            action = action_of(server, name, each)
        except Refused as error:
            action = {'name': each, 'error': str(error)}
        if action and ('error' in action or uses.search(action['actionban'])):
            jail['actions'].append(action)
    if not any('actionban' in action for action in jail['actions']):
        return jail
    try:
        jail['bans'], rows = bans_of(server, database, name)
        jail['started'], jail['restored'], jail['waiting'] = waiting_of(
            server, name, rows, jail['bans'])
    except Refused as error:
        jail['bansError'] = str(error)
    return jail


def jails_for(server, database, uses):
    # `status` would join the names by commas.
    names = [name for jail in server.ask('banned') for name in jail]
    return [jail_of(server, database, re.compile(uses), name) for name in names]


def live_about(server, database, address):
    found = []
    for name in [name for jail in server.ask('banned') for name in jail]:
        bans, _ = bans_of(server, database, name, True)
        found += [{'jail': name, **ban} for ban in bans if is_meant(address, ban['id'], ban['ip'])]
    return found


def stored_about(database, address):
    found = []
    now = time.time()
    for name in database.jails():
        for each, row in database.rows(name, True).items():
            alive = row['seconds'] < 0 or row['began'] + row['seconds'] > now
            if alive and is_meant(address, each, row['ip']):
                found.append({'jail': name, 'id': each, 'ip': row['ip'], 'began': row['began'],
                              'seconds': row['seconds'], **more(row, True)})
    return found


def is_meant(address, *texts):
    """Also of every range, and for a range: who asks finds out what contains what."""
    return '/' in address or address in texts or any('/' in str(text) for text in texts)


def about(question, place):
    """What runs and what is stored; each of them, if only one can be known."""
    failures, live, database = [], [], None
    try:
        with Server(place('socket'), PATIENCE['ask']) as server:
            try:
                database = database_of(question, server)
            except Failure as failure:
                failures.append(str(failure))
            live = live_about(server, database or Database(''), question['about'])
    except (Failure, Refused, OSError) as error:
        failures.append(said(error))
        try:
            database = database or Database(question.get('database') or place('dbfile'))
        except Failure as failure:
            failures.append(str(failure))
    try:
        stored = stored_about(database, question['about']) if database else []
    except Failure as failure:
        failures.append(str(failure))
        stored = []
    return {'live': live, 'stored': stored, 'failures': failures}


def database_of(question, server):
    given = question.get('database')
    if given:
        return Database(given)
    path = server.ask('get', 'dbfile') or ''
    # Where the server sees it, then where we would.
    return Database(path, ['/proc/%d/root%s' % (server.pid, path)] if server.pid > 0 else [])


def answer_to(question):
    def place(option):
        return question.get(option) or configured(question.get('config_dir') or '/etc/fail2ban', option)

    if 'about' in question:
        return about(question, place)
    with Server(place('socket'), PATIENCE['unban' if 'unban' in question else 'ask']) as server:
        if 'unban' in question:
            others = [server.ask('set', jail, 'unbanip', each) for jail, each in question['others']]
            return {'freed': server.ask('unban', question['unban']) + sum(others)}
        database = database_of(question, server)
        return {'database': database.connection is not None, 'started': server.started(),
                'instance': server.instance(),
                'jails': jails_for(server, database, question['uses'])}


def said(error):
    if isinstance(error, (Failure, Refused)):
        return str(error)
    if isinstance(error, TimeoutError):
        return 'it does not answer in time'
    if isinstance(error, PermissionError):
        return 'only root may'
    return 'its answer is not understood: %r' % error


def main():
    try:
        answer, code = answer_to(json.loads(sys.argv[1])), 0
    except Exception as error:
        answer, code = {'failure': said(error)}, 75
    print(json.dumps(answer))
    sys.exit(code)


main()
