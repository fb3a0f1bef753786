"""Fail2Ban's own code resolves its action files, so that they mean here what they mean to it.

Input: {"folder": where they are, "wanted": [{"file": "iptables", "params": {"name": "sshd"}}]}, and
"text" for a file that is not there yet. Output: an answer to each, as actions.ts explains it. What
belongs to one ban stays a tag.
"""
import sys
sys.path[:] = filter(None, sys.path)  # No module comes from the folder that it is run in.
import json, logging, os, tempfile
try:
    from fail2ban.client.actionreader import ActionReader
    from fail2ban.client.configreader import ConfigReader
    from fail2ban.server.action import CommandAction
    from fail2ban.server.ipdns import DNSUtils
except ImportError as error:
    print(json.dumps({'missing': str(error)}))
    sys.exit()

VERBS = ['start', 'stop', 'check', 'flush', 'ban', 'unban', 'prolong', 'repair']
FAMILIES = ['', 'inet4', 'inet6']
opened = set()


class Reader(ActionReader):
    """Of files in any folder, not only in one that is called action.d."""
    def read(self):
        return ConfigReader.read(self, self.getFile())


def properties_of(reader):
    """What `fail2ban-client -d` would tell the server."""
    reader.getOptions({})
    found = {}
    for command in reader.convert():
        if command[0] == 'multi-set':
            found.update(command[4])
        elif len(command) == 6:
            found[command[4]] = command[5]
    return found


def resolved(properties):
    action = CommandAction(None, 'net2ban')
    action.actionprolong = ''  # It has none of its own.
    for name, value in properties.items():
        setattr(action, name, value)
    commands = {'action%s %s' % (verb, family): action.replaceTag(
        '<action%s>' % verb, action._properties, 'family=' + family if family else '')
        for verb in VERBS for family in FAMILIES}
    return {'commands': commands, 'families': list(action._families),
            'onDemand': bool(action._startOnDemand), 'timeout': action.timeout}


def answer(folder, wanted):
    opened.clear()
    found = {'init': {}}
    try:
        reader = Reader(wanted['file'], wanted['params']['name'], dict(wanted['params']), basedir=folder)
        if not reader.read():
            raise ValueError('no such action file')
        if not reader.has_section('Definition'):
            raise ValueError('it has no section [Definition]')
        if reader.has_section('Init'):
            found['init'] = {name: reader.get('Init', name, raw=True) for name in reader.options('Init', False)}
        found.update(resolved(properties_of(reader)))
    except Exception as error:
        found['error'] = ' '.join(str(error).split()) or type(error).__name__
    found['paths'] = sorted(opened)
    return found


def as_if(folder, wanted):
    """The file as it would be with another text: in a folder where all others are the same."""
    with tempfile.TemporaryDirectory() as beside:
        for name in os.listdir(folder):
            os.symlink(os.path.join(os.path.abspath(folder), name), os.path.join(beside, name))
        path = os.path.join(beside, wanted['file'] + '.conf')
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(wanted['text'])
        return answer(beside, wanted)


def main():
    logging.disable(logging.CRITICAL)
    DNSUtils.setIPv6IsAllowed(True)
    sys.addaudithook(lambda event, args: event == 'open' and opened.add(str(args[0])))
    question = json.load(sys.stdin)
    print(json.dumps([(as_if if 'text' in wanted else answer)(question['folder'], wanted)
                      for wanted in question['wanted']]))


main()
