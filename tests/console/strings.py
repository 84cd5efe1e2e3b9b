"""Naughty strings of our own making: each is something that a careless page would take for more than text."""

from __future__ import annotations

MARK = "xss"
"""Every element that one of them would make has this id or name; every request would go to this host or path."""

_BIDI = "\u202e\u2066\u200b\u2069\u202c"
_ELEMENTS = (
    "<script>window.xss=1</script>",
    "</script><script>window.xss=1</script>",
    "<SCRIPT SRC=//xss.example/a.js></SCRIPT>",
    "<script/x>window.xss=1</script/x>",
    "<scr<script>ipt>window.xss=1</scr</script>ipt>",
    "<img src=x onerror=window.xss=1>",
    "<img src='http://127.0.0.1:9/xss.png'>",
    '"><img src=/xss onerror="window.xss=1">',
    "'><img src=/xss onerror='window.xss=1'>",
    "`><img src=/xss onerror=`window.xss=1`>",
    "<svg onload=window.xss=1>",
    "<svg><animate onbegin=window.xss=1 attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:window.xss=1'><text>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><img src=/xss onerror=window.xss=1>",
    "<iframe src=javascript:parent.xss=1></iframe>",
    "<iframe srcdoc='<script>parent.xss=1</script>'></iframe>",
    "<object data=/xss></object><embed src=/xss>",
    "<video><source onerror=window.xss=1></video>",
    "<audio src=/xss autoplay onerror=window.xss=1>",
    "<body onload=window.xss=1>",
    "<details open ontoggle=window.xss=1>x</details>",
    "<input autofocus onfocus=window.xss=1>",
    "<form action=/xss><button formaction=/xss>go</button></form>",
    "<a href='javascript:window.xss=1'>click</a>",
    "<link rel=stylesheet href=/xss.css>",
    "<style>@import '/xss.css';*{background:url(/xss.png)}</style>",
    "<base href='http://xss.example/'>",
    "<meta http-equiv=refresh content='0;url=/xss'>",
    "<template><img src=/xss></template><slot name=xss>",
    "<xss-element id=xss></xss-element>",
    "</textarea><script>window.xss=1</script>",
    "</title><script>window.xss=1</script>",
    "</pre></code></bdi></p></main><h1 id=xss>Approved</h1>",
    "--><script>window.xss=1</script><!--",
    "]]><script>window.xss=1</script><![CDATA[",
    "<!DOCTYPE html><html id=xss>",
)
_TEXTS = (
    "javascript:window.xss=1",
    "data:text/html,<script>parent.xss=1</script>",
    "{{ 7 * 7 }}{% for x in () %}{{ self.__init__ }}{% endfor %}",
    "${7*7} #{7*7} <%= 7*7 %>",
    "&lt;script&gt;window.xss=1&lt;/script&gt; &#60;img src=/xss&#62; &quot;",
    "%3Cscript%3Ewindow.xss=1%3C/script%3E",
    "\x00\x01\x07\x08\x0b\x0c\x1b\x7f\x85\x9b",
    "\x1b[2J\x1b[31mApproved\x1b[0m\x1b]52;c;eHNz\x07",
    f"refund {_BIDI}001 tnuoma{_BIDI}",
    "\u2028\u2029\ufeff\u200d\u180e\u115f\u3164",
    "a\u0301\u0302\u0303\u0304" * 40,
    "раураl аррrоvеd",
    "مرحبا שלום",
    "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\\\"';--/**/",
    "../../../../etc/passwd",
    "\r\nSet-Cookie: xss=1\r\n\r\n<script>window.xss=1</script>",
    "line\n" * 500 + "Approved: yes",
    "Ω" * 5_000,
    "x" * 20_000,
    "",
    " \t ",
)

NAUGHTY: tuple[str, ...] = (*_ELEMENTS, *_TEXTS)
HUGE = "<b id=xss>" * 100_000
"""A megabyte."""
