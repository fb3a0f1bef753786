"""What Fail2Ban itself makes of action files: the settings that `fail2ban-client -d` prints and the
command texts that the server would run. Arguments: base directory; standard input: JSON list of
{"file": ..., "params": {...}, "ip": [...]}; standard output: a JSON list in the same order."""

import json
import sys

from fail2ban.client.actionreader import ActionReader
from fail2ban.helpers import str2LogLevel, getLogger
from fail2ban.server.action import CallingMap, CommandAction
from fail2ban.server.ipdns import DNSUtils

DNSUtils.setIPv6IsAllowed(True)
getLogger("fail2ban").setLevel(str2LogLevel("CRITICAL"))
ACTIONS = ["start", "stop", "flush", "check", "repair", "ban", "unban", "prolong"]


def settings(base, file, params):
    reader = ActionReader(file, params["name"], dict(params), basedir=base)
    if not reader.read():
        raise ValueError("not read")
    reader.getOptions({})
    found = {}
    for command in reader.convert():
        if command[0] == "multi-set":
            found.update({name: value for name, value in command[4]})
        elif len(command) == 6:
            found[command[4]] = command[5]
    return found


def commands(found, ips):
    action = CommandAction(None, "test")
    action.actionprolong = ""
    for name, value in found.items():
        setattr(action, name, value)
    texts = {}
    for ip, family in ips:
        dynamic = CallingMap({"ip": ip, "family": family, "time": "1700000000", "bantime": "600",
                              "F-*": {}})
        for name in ACTIONS:
            text = action.replaceTag("<action%s>" % name, action._properties,
                                     conditional="family=" + family, cache=action._substCache)
            texts["%s %s" % (name, family)] = action.replaceDynamicTags(text, dynamic)
    return {"texts": texts, "families": action._families, "onDemand": bool(action._startOnDemand),
            "timeout": action.timeout}


def answer(base, wanted):
    try:
        found = settings(base, wanted["file"], wanted["params"])
        texts = commands(found, [("192.0.2.1", "inet4"), ("2001:db8::1", "inet6")])
        return {"settings": {name: str(value) for name, value in found.items() if value is not None}, **texts}
    except Exception as error:
        return {"error": "%s: %s" % (type(error).__name__, error)}


print(json.dumps([answer(sys.argv[1], wanted) for wanted in json.load(sys.stdin)]))
