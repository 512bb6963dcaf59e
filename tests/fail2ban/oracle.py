"""Queries the installed fail2ban: reads JSON objects, one a line, and answers each with one."""
import json
import logging
import sys

from fail2ban.client.filterreader import FilterReader
from fail2ban.server.failregex import Regex
from fail2ban.server.filter import Filter
from fail2ban.server.ipdns import IPAddr

logging.getLogger("fail2ban").setLevel(logging.CRITICAL + 1)


def reader(ask):
    found = FilterReader(ask["name"], "jail", ask["options"], basedir=ask["base"])
    if not found.read():
        raise ValueError("no such filter")
    found.applyAutoOptions("")
    # As fail2ban-regex does it. The server alone lets no option of the jail into `%(x)s` in an
    # option that is used by its tag.
    found.getOptions({})
    return found


def expand(ask):
    """The patterns of a filter, as a jail gets them."""
    expanded = {}
    for command in reader(ask).convert():
        value = command[-1] if isinstance(command[-1], list) else [command[-1]]
        expanded[command[2].removeprefix("add")] = value
    return expanded


def match(ask):
    """Whether a pattern matches a text, and what its groups hold."""
    regex = Regex(ask["pattern"], useDns="no")
    regex.search([(ask["text"], "", "")])
    return {"matched": regex.hasMatched(), "groups": regex.getGroups() if regex.hasMatched() else {}}


class Jail:
    name = "jail"
    database = None
    actions = None


def hosts(ask):
    """Who is hit by each of the lines, one after the other, with names never looked up."""
    judge = Filter(Jail(), useDns="no")
    judge.checkFindTime = False
    for command in reader(ask).convert():
        value, option = command[-1], command[2]
        values = value if isinstance(value, list) else [value]
        if option == "addfailregex":
            for regex in values:
                judge.addFailRegex(regex)
        elif option == "addignoreregex":
            for regex in values:
                judge.addIgnoreRegex(regex)
        elif option == "prefregex":
            judge.prefRegex = value
        elif option == "datepattern":
            judge.setDatePattern(value)
        elif option == "maxlines":
            judge.setMaxLines(int(value))
    found = []
    for line in ask["lines"]:
        try:
            failures = judge.processLine(line)
        except Exception:
            # As the server does, which passes over such a line.
            failures = []
        found.append([str(failure[1]) for failure in failures if isinstance(failure[1], IPAddr)])
    return {"hosts": found}


ANSWERS = {"expand": expand, "match": match, "hosts": hosts}

for line in sys.stdin:
    ask = json.loads(line)
    try:
        answer = ANSWERS[ask["ask"]](ask)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
