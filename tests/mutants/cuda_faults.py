"""The faults of cuda_mutants.py: every one is written into a copy of the sources at once, switched by a number (mutant_switch.h)."""

import hashlib
import re

from mutants import closing, masked, squeeze

NAMESPACE = "heddle::mutants::"
NAME = r"[A-Za-z_]\w*"
PRIMARY = r"(?:%s(?:(?:\.|->)%s)*(?:\[\w+\])?|\d+)" % (NAME, NAME)
# Without these the plain flavour computes the same: heddle-mutate leaves them out where races are looked for.
SYNCHRONISES = re.compile(r"\b(?:__sync\w+|__threadfence\w*|\w*(?:sync|fence|arrive|wait|commit|expect)\w*)\b")


class Wrap:
    """Text before and after a place: places nest or lie apart, so all faults of a file fit into it together."""

    def __init__(self, start, end, prefix, suffix, fault):
        self.start, self.end, self.prefix, self.suffix, self.fault = start, end, prefix, suffix, fault


def conditions(code):
    for m in re.finditer(r"\b(if|while) \(", code):
        end = closing(code, m.end() - 1)
        inside = code[m.end() : end]
        if end > 0 and ";" not in inside and not re.match(r"\s*(?:const )?[\w:<>]+[*&]? \w+ = ", inside):
            yield m.group(1), m.end(), end


def operand_after(code, at):
    """The end of the operand that begins at `at`, if it is a name, a number or a call or subscript of one; else -1."""
    m = re.match(r"\d[\w.']*(?:(?<=[eEpP])[-+]\w+)?|[\w:]+(?:(?:\.|->)\w+)*", code[at:])
    if not m:
        return -1
    end = at + m.end()
    if code[end : end + 1] == "<":
        return -1
    while True:
        if code[end : end + 1] in ("[", "{"):
            end = after_closing(code, end)
        elif code[end : end + 1] == "(":
            close = closing(code, end)
            if close < 0:
                return -1
            end = close + 1
        elif m := re.match(r"(?:\.|->)\w+", code[end:]):
            end += m.end()
        else:
            break
    return -1 if code[end : end + 1] == "." or code[end : end + 2] in ("->", "++", "--") else end


def after_closing(code, at):
    """Behind the bracket or brace that closes the one at `at`."""
    opens, closes, depth = code[at], {"[": "]", "{": "}"}[code[at]], 0
    for i in range(at, len(code)):
        depth += (code[i] == opens) - (code[i] == closes)
        if depth == 0:
            return i + 1
    return len(code)


def among_arguments(code, at):
    """Whether what follows the parenthesis or comma at `at` is an argument of a call or stands in a list: no declarator and no template's argument."""
    depth, angle = 0, 0
    for i in range(at if code[at] == "(" else at - 1, -1, -1):
        if code[i] in ")]}":
            depth += 1
        elif code[i] in "([{":
            if depth == 0:
                listed = code[i] == "{" and re.search(r"[\w>\]({]$|(?:[=,]|\breturn) $", code[max(0, i - 8) : i])
                return bool(code[i] == "(" or listed) and angle <= 0
            depth -= 1
        elif depth == 0 and code[i] == ">" and re.match(r"[>(,:]|\)", code[i + 1]):
            angle -= 1
        elif depth == 0 and code[i] == "<" and re.match(r"\w", code[i - 1]):
            angle += 1
        elif depth == 0 and code[i] == ";":
            return False
    return False


def declares(code, at):
    """Whether the brackets that open at `at` say how large an array is."""
    while at > 0 and code[at - 1] == "]":
        depth = 0
        while at > 0:
            at -= 1
            depth += (code[at] == "]") - (code[at] == "[")
            if depth == 0:
                break
    before = code[code.rfind("\n", 0, at) + 1 : at]
    statement = code[max(code.rfind(c, 0, at) for c in ";{}") + 1 : at]
    if re.match(r"\s*[\w:]+ \w+\[[^=()]*$", statement) and not re.match(r"\s*(?:return|else|case) ", statement):  # a later one of several declarators
        return True
    declarator = re.search(r"(\S*)\s*(\(&|[\w>*&:]+ )\w+$|\(&\w+\)$", before)
    return bool(declarator) and not re.search(r"\b(?:return|else|case) \w+$", before)


def places(text):
    """Wraps of one source; a fault is (line of the text, what it does)."""
    code = re.sub(r"HEDDLE_SHARED\([^;]*;", lambda m: " " * len(m.group()), masked(text))  # constants
    found = []

    def wrap(start, end, prefix, suffix, what):
        found.append(Wrap(start, end, prefix, suffix, what))

    for keyword, start, end in conditions(code):
        if keyword == "if":
            wrap(start, end, NAMESPACE + "on(@) || (", ")", "if (%s): always" % squeeze(text[start:end]))
        wrap(start, end, "!" + NAMESPACE + "on(@) && (", ")", "%s (%s): never" % (keyword, squeeze(text[start:end])))
    for m in re.finditer(r"(?<=[\w)\]])\[", code):  # subscripts
        i = after_closing(code, m.start()) - 1
        inside = text[m.end() : i]
        if declares(code, m.start()):
            continue
        if not inside or inside.startswith(("&", "=", "[")) or ";" in inside or "~" in code[m.end() : i] or not re.match(r"[\w(]", inside):
            continue
        by = 1 if hashlib.sha256(inside.encode()).digest()[0] % 2 else -1
        wrap(m.end(), i, NAMESPACE + "moved(@, ", ", %d)" % by, "[%s]: %+d" % (squeeze(inside), by))
    for m in re.finditer(r" (<|<=|>|>=|==|!=|\+|-|\*|/|%|<<|>>|&) ", code):  # operators, by their right operand
        line = code[code.rfind("\n", 0, m.start()) + 1 : m.start()]
        end = operand_after(code, m.end())
        if end < 0 or re.search(r"\btemplate\b|\busing\b", line) or line.rstrip().endswith(("operator", "&&")) or "operator" in line[-12:]:
            continue
        what, operator = squeeze(text[m.start() : end]), m.group(1)
        if operator in ("<", "<=", ">", ">=", "==", "!="):
            wrap(m.end(), end, NAMESPACE + "moved(@, ", ", %d)" % (-1 if operator in (">=",) else 1), "%s: one off" % what)
        elif operator in ("+", "-"):
            wrap(m.end(), end, NAMESPACE + "negated(@, ", ")", "%s: the other sign" % what)
        elif operator in ("*", "/"):
            wrap(m.end(), end, NAMESPACE + "one(@, ", ")", "%s: left out" % what)
        else:
            wrap(m.end(), end, NAMESPACE + "moved(@, ", ", 1)", "%s: one off" % what)
    moved = {(w.start, w.end) for w in found}
    for m in re.finditer(r"(?<![\w.'])(?<![eEpP][-+])(\d+)(?![\w.'])", code):  # whole numbers, but those that are one off already
        if (m.start(), m.end()) in moved or "HEDDLE_LAUNCH" in code[code.rfind("\n", 0, m.start()) : m.start()]:  # its bytes of shared memory
            continue
        wrap(m.start(), m.end(), NAMESPACE + "moved(@, ", ", 1)", "%s: %d" % (m.group(), int(m.group()) + 1))
    for m in re.finditer(r"(?<![\w.])(\d+\.\d*(?:e-?\d+)?f?|\d+e-\d+f?)(?![\w.])", code):  # reals, doubled; 0 becomes 1
        zero = float(m.group().rstrip("f")) == 0
        wrap(m.start(), m.end(), NAMESPACE + "other(@, ", ", %s)" % ("1" if zero else "2 * " + m.group()), "%s: %s" % (m.group(), "1" if zero else "doubled"))
    for m in re.finditer(r"\b(true|false)\b", code):
        wrap(m.start(), m.end(), NAMESPACE + "other(@, ", ", %s)" % ("false" if m.group() == "true" else "true"), "not " + m.group())
    statement = r"(?<=[;{}]\n)[ \t]*((?:[\w:>\[\]().-]+?(?:\.|->|::))?\w+(?:<[\w:]+>)?\([^;{}]*\)|(?:[\w.>()-]|\[[^;{}\[\]]*\])+ [-+*/|&^]?= [^;{}]*);"
    for m in re.finditer(statement, code):  # statements, left out
        if re.match(r"(?:return|throw|fail|static_assert|using|delete|constexpr|HEDDLE_\w+)\b", m.group(1)) or SYNCHRONISES.search(m.group(1)):
            continue
        wrap(m.start(1), m.end(), "if (%son(@)) {} else " % NAMESPACE, "", "%s left out" % squeeze(text[m.start(1) : m.end()]))
    for m in re.finditer(r"[(,] ?(%s), (%s)(?=[,)])" % (PRIMARY, PRIMARY), code):  # arguments, swapped
        before = code[max(0, m.start() - 40) : m.start() + 1]
        if m.group(1) == m.group(2) or m.group(1).isdigit() or m.group(2).isdigit() or re.search(r"(?:template|for|\]) ?\($|\b(?:fmaf|f?min|f?max)f?\($|bit_cast\($", before):
            continue
        if not among_arguments(code, m.start()) or ".add(DeviceType" in code[code.rfind("\n", 0, m.start()) : m.start()] or m.group(1) in ("int", "float", "bool"):
            continue
        a, b = m.group(1), m.group(2)
        wrap(m.start(1), m.end(2), "", "", "%s, %s swapped" % (a, b))
        found[-1].swap = (a, b)
    return found


def owned_line(text, start):
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    return squeeze(text[first : len(text) if last < 0 else last])


def share_of(file, line, what, copy, share, salt=""):
    """Whether a fault is among `share` percent: by what it is, so that others come and go without changing the choice."""
    digest = hashlib.sha256(f"{salt}\0{file}\0{line}\0{what}\0{copy}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < share * 10


def plant(file, text, share, first, keep=lambda fault: True):
    """The text with its faults in it, numbered from `first`, a record of each, and the next number."""
    counted, records, inserts = {}, [], []
    for w in places(text):
        line = owned_line(text, w.start)
        copy = counted[line, w.fault] = counted.get((line, w.fault), -1) + 1
        record = {"file": file, "number": text.count("\n", 0, w.start) + 1, "line": line, "fault": w.fault, "copy": copy}
        if not share_of(file, line, w.fault, copy, share):
            continue
        n, first = first, first + 1  # also of one that is not kept: the others keep their numbers
        if not keep(record):
            continue
        record["id"] = n
        records.append(record)
        if hasattr(w, "swap"):
            a, b = w.swap
            middle = w.start + len(a)
            inserts += [(w.start, middle, -1, f"{NAMESPACE}first({n}, "), (middle, w.start, 1, f", {b})")]
            second = w.end - len(b)
            inserts += [(second, w.end, -1, f"{NAMESPACE}first({n}, "), (w.end, second, 1, f", {a})")]
        else:
            inserts += [(w.start, w.end, -1, w.prefix.replace("@", str(n))), (w.end, w.start, 1, w.suffix)]
    return assemble(text, inserts), records, first


def assemble(text, inserts):
    """Suffixes come before prefixes at one place; of prefixes the one of the longest span is first, of suffixes the one of the shortest."""
    order = sorted(range(len(inserts)), key=lambda i: (inserts[i][0], -inserts[i][2], -inserts[i][1], i if inserts[i][2] < 0 else -i))
    pieces, at = [], 0
    for i in order:
        place, _, _, piece = inserts[i]
        pieces += [text[at:place], piece]
        at = place
    return "".join(pieces) + text[at:]
