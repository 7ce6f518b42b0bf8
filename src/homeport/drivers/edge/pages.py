"""What the edge says itself: platform pages and the media types of files (the bundled nginx ships none)."""

from __future__ import annotations

from homeport.drivers.edge.syntax import Directive, block, line

RETRY_AFTER = 5
"""Seconds a client is told to wait after 502, 503 and 504: about one restart with backoff."""

PAGES = {
    403: ("Not allowed", "This address may not be reached from where you are."),
    404: ("Not found", "There is nothing at this address."),
    413: ("Too large", "The request is larger than this site accepts."),
    502: ("Back in a moment", "The application behind this address did not answer. It may be restarting."),
    503: ("Back in a moment", "The application behind this address is not running right now."),
    504: ("Too slow", "The application behind this address did not answer in time."),
}


def page(status: int) -> str:
    """A small self-contained HTML page."""
    title, text = PAGES[status]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32em;padding:0 1em}}</style>"
        f"<h1>{title}</h1><p>{text}</p><p><small>{status}</small></p></html>\n"
    )


def page_texts() -> list[Directive]:
    """The pages as variables, once for all servers."""
    return [block("geo", [f"$homeport_page{status}"], [line("default", page(status))]) for status in PAGES]


def error_pages(common: tuple[Directive, ...]) -> list[Directive]:
    """Directives of a server that answer its own errors with the pages; none may be stored by a cache."""
    made: list[Directive] = []
    for status in PAGES:
        retry = [line("add_header", "Retry-After", RETRY_AFTER, "always")] if status in (502, 503, 504) else []
        made.append(line("error_page", status, f"@homeport_{status}"))
        made.append(
            block(
                "location",
                [f"@homeport_{status}"],
                [
                    *common,
                    line("add_header", "Cache-Control", "no-store", "always"),
                    *retry,
                    block("types", [], []),
                    line("default_type", "text/html; charset=utf-8"),
                    line("return", status, f"$homeport_page{status}"),
                ],
            )
        )
    return made


_TYPES = """
text/html html htm shtml | text/css css | text/plain txt log | text/csv csv | text/markdown md markdown | text/calendar ics
text/javascript js mjs cjs | text/xml xml xsl xsd | text/vcard vcf | text/vtt vtt | text/yaml yaml yml | text/x-component htc
application/json json map | application/ld+json jsonld | application/manifest+json webmanifest | application/schema+json schema
application/rss+xml rss | application/atom+xml atom | application/xhtml+xml xhtml | application/wasm wasm | application/pdf pdf
application/zip zip | application/gzip gz tgz | application/x-bzip2 bz2 | application/x-xz xz | application/zstd zst
application/x-tar tar | application/x-7z-compressed 7z | application/vnd.rar rar | application/java-archive jar war
application/epub+zip epub | application/rtf rtf | application/msword doc | application/vnd.ms-excel xls
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx | application/geo+json geojson
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx | application/vnd.ms-powerpoint ppt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx | application/vnd.apple.mpegurl m3u8
application/vnd.android.package-archive apk | application/x-apple-diskimage dmg | application/octet-stream bin exe dll iso img msi deb
application/vnd.apache.parquet parquet | application/toml toml | application/sql sql | application/postscript ps eps ai
font/woff woff | font/woff2 woff2 | font/ttf ttf | font/otf otf | font/collection ttc | application/vnd.ms-fontobject eot
image/png png | image/jpeg jpg jpeg jfif | image/gif gif | image/svg+xml svg svgz | image/webp webp | image/avif avif | image/jxl jxl
image/x-icon ico cur | image/bmp bmp | image/tiff tif tiff | image/heic heic | image/apng apng
audio/mpeg mp3 | audio/ogg ogg oga opus | audio/wav wav | audio/mp4 m4a | audio/aac aac | audio/flac flac | audio/webm weba
audio/midi mid midi
video/mp4 mp4 m4v | video/webm webm | video/ogg ogv | video/quicktime mov | video/x-msvideo avi | video/mp2t ts | video/mpeg mpeg mpg
video/x-matroska mkv | model/gltf-binary glb | model/gltf+json gltf
"""

CHARSET = frozenset(
    {"text/html", "text/css", "text/plain", "text/csv", "text/markdown", "text/calendar", "text/vcard", "text/vtt", "text/yaml"}
)
"""Types that are sent with `; charset=utf-8`; JavaScript too, so that scripts read their own literals right."""


def media_types() -> Directive:
    """The `types` block, from the IANA registry's names and the suffixes sites use."""
    entries: list[Directive] = []
    for group in _TYPES.replace("\n", "|").split("|"):
        if not group.strip():
            continue
        kind, *suffixes = group.split()
        charset = "; charset=utf-8" if kind in CHARSET or kind == "text/javascript" else ""
        entries.append(line(kind + charset, *suffixes))
    return block("types", [], entries)
