"""Node applications: frameworks by their package, servers by their start script, static sites by their bundler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from homeport.blueprints.detect.files import Folder, mapping, text_of
from homeport.blueprints.detect.found import Found
from homeport.model.service import Build, StaticService, WebService, WorkerService

_SERVERS = (
    "express fastify koa @hapi/hapi @nestjs/core hono polka restify @hono/node-server http-server serve ws socket.io @feathersjs/feathers "
    "sails @adonisjs/core @strapi/strapi keystone @keystone-6/core apollo-server @apollo/server json-server parse-server micro h3 elysia "
    "@trpc/server graphql-yoga next nuxt @remix-run/serve @react-router/serve uWebSockets.js loopback @loopback/core directus ghost n8n"
)
SERVERS = tuple(_SERVERS.split())
"""Packages that answer requests."""
DEV_SERVER = re.compile(
    r"^(npx |yarn |pnpm )?(vite( |$)|react-scripts start|ng serve|webpack(-dev-server| serve)|parcel( |$)(?!build)|gatsby develop|"
    r"vue-cli-service serve|astro (dev|preview)|docusaurus start|vitepress dev|eleventy --serve|serve |snowpack|expo |live-server|"
    r"react-app-rewired start|craco start)"
)
"""Start scripts of developers: in production the built files are served instead."""
_LISTENS = re.compile(r"\.listen\(|createServer|process\.env\.PORT|Deno\.serve|Bun\.serve|serve\(")
_ENTRIES = (
    "server.js index.js app.js main.js server.mjs index.mjs app.mjs main.mjs server.cjs index.cjs src/server.js src/index.js src/app.js "
    "src/main.js src/index.mjs bin/www"
)
ENTRIES = tuple(_ENTRIES.split())


@dataclass(frozen=True)
class Package:
    """What a package.json says."""

    scripts: dict[str, Any]
    packages: dict[str, Any]
    main: str
    manager: str
    workspaces: bool

    def has(self, *names: str) -> bool:
        return any(name in self.packages for name in names)

    def run(self, script: str) -> str:
        """The command line that runs a script, by the package manager in use."""
        return f"{self.manager} start" if script == "start" and self.manager != "bun" else f"{self.manager} run {script}"


def read_package(folder: Folder) -> Package | None:
    """The package.json of a folder; None when there is none, or it is broken."""
    data = folder.json("package.json")
    if not data:
        return None
    named = text_of(data.get("packageManager")).split("@")[0]
    locks = {"pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn", "bun.lockb": "bun", "bun.lock": "bun"}
    manager = named if named in ("npm", "pnpm", "yarn", "bun") else next((m for lock, m in locks.items() if folder.has(lock)), "npm")
    return Package(
        scripts=mapping(data, "scripts"),
        packages={**mapping(data, "devDependencies"), **mapping(data, "dependencies")},
        main=text_of(data.get("main")),
        manager=manager,
        workspaces=bool(data.get("workspaces")) or folder.has("pnpm-workspace.yaml", "lerna.json", "turbo.json"),
    )


def detect_node(folder: Folder) -> Found | None:
    """The application of a folder with a package.json, or None (a library, or the top of a monorepo)."""
    package = read_package(folder)
    if package is None:
        return None
    for attempt in (_next, _rendered, _static, _server):
        found = attempt(folder, package)
        if found is not None:
            return found
    return None


def _config(folder: Folder, *stems: str) -> str:
    """The text of a configuration file under any of its extensions, without comments."""
    for stem in stems:
        for extension in ("js", "mjs", "ts", "cjs", "mts", "cts"):
            if text := folder.text(f"{stem}.{extension}"):
                return re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", text, flags=re.DOTALL)
    return ""


def _next(folder: Folder, package: Package) -> Found | None:
    if not package.has("next"):
        return None
    output = re.search(r"output\s*:\s*['\"](\w+)['\"]", _config(folder, "next.config"))
    build = text_of(package.scripts.get("build"))
    command = package.run("build") if build else "npx next build"
    if output and output[1] == "export":
        return Found(
            StaticService(publish="out", build=Build(runtime="node", framework="nextjs", command=command)), ("Next.js exported as files.",)
        )
    if output and output[1] == "standalone":
        copied = "cp -r .next/static .next/standalone/.next/static && if [ -d public ]; then cp -r public .next/standalone/public; fi"
        made = Build(runtime="node", framework="nextjs", command=f"{command} && {copied}")
        service = WebService(command="HOSTNAME=$HOST node .next/standalone/server.js", build=made)
        return Found(service, ("Next.js as a standalone server.",))
    start = text_of(package.scripts.get("start"))
    own = start and not start.startswith("next dev")
    run = package.run("start") if own else "npx next start -H $HOST -p $PORT"
    return Found(WebService(command=run, build=Build(runtime="node", framework="nextjs", command=command)), ("Next.js server.",))


def _rendered(folder: Folder, package: Package) -> Found | None:
    """Frameworks that build a server of their own."""
    made = {"command": package.run("build") if "build" in package.scripts else ""}
    if package.has("nuxt") and "generate" not in text_of(package.scripts.get("build")):
        return Found(
            WebService(command="node .output/server/index.mjs", build=Build(runtime="node", framework="nuxtjs", **made)), ("Nuxt server.",)
        )
    if package.has("@sveltejs/kit") and not package.has("@sveltejs/adapter-static"):
        build = Build(runtime="node", framework="sveltekit", **made)
        if package.has("@sveltejs/adapter-node"):
            return Found(WebService(command="node build", build=build), ("SvelteKit server.",))
        note = "SvelteKit without the node adapter: its preview server is used. Add @sveltejs/adapter-node for production."
        return Found(WebService(command="npx vite preview --host $HOST --port $PORT", build=build), (note,))
    if package.has("astro") and package.has("@astrojs/node") and "adapter" in _config(folder, "astro.config"):
        build = Build(runtime="node", framework="astro", **made)
        return Found(WebService(command="node ./dist/server/entry.mjs", build=build), ("Astro with its node adapter.",))
    return None


def _static(folder: Folder, package: Package) -> Found | None:
    """Bundlers whose result is files, when no server of the application's own is there."""
    start = text_of(package.scripts.get("start"))
    if package.has(*SERVERS) and start and not DEV_SERVER.match(start):
        return None
    found = _publish(folder, package)
    if found is None:
        return None
    framework, publish = found
    if start and not DEV_SERVER.match(start) and re.match(r"^(NODE_ENV=\S+ )?(node|ts-node|tsx|nodemon|bun|deno) ", start):
        return None
    command = package.run("build") if "build" in package.scripts else ""
    note = f"{framework} site: built files are served from {publish or 'the root'}."
    return Found(
        StaticService(
            publish=publish, single_page=framework in SINGLE_PAGE, build=Build(runtime="node", framework=framework, command=command)
        ),
        (note,),
    )


SINGLE_PAGE = frozenset({"vite", "create-react-app", "angular", "vue", "parcel"})
"""Frameworks whose router runs in the browser: an unknown path answers index.html."""


def _publish(folder: Folder, package: Package) -> tuple[str, str] | None:
    build = text_of(package.scripts.get("build"))
    if package.has("@sveltejs/kit"):
        return "sveltekit", "build"
    if package.has("nuxt"):
        return "nuxtjs", ".output/public"
    if package.has("astro"):
        return "astro", _out(_config(folder, "astro.config"), "dist")
    if package.has("gatsby"):
        return "gatsby", "public"
    if package.has("@docusaurus/core"):
        return "docusaurus", "build"
    if package.has("vitepress"):
        return "vitepress", "docs/.vitepress/dist" if "docs" in build or folder.has("docs/") else ".vitepress/dist"
    if package.has("react-scripts", "react-app-rewired", "@craco/craco"):
        return "create-react-app", "build"
    if package.has("@vue/cli-service"):
        return "vue", "dist"
    if package.has("@angular/cli", "@angular/core"):
        return "angular", _angular(folder)
    if package.has("@11ty/eleventy"):
        return "eleventy", "_site"
    if package.has("vite", "vite-plus", "rolldown-vite") and (folder.has("index.html") or _config(folder, "vite.config")):
        return "vite", _out(_config(folder, "vite.config"), "dist")
    if package.has("parcel", "parcel-bundler"):
        return "parcel", "dist"
    if "build" in package.scripts and folder.has("index.html") and not package.has(*SERVERS) and not package.main.endswith(".js"):
        return "static", "dist" if re.search(r"\bdist\b|webpack|rollup|esbuild", build) else ""
    return None


def _out(config: str, default: str) -> str:
    found = re.search(r"outDir\s*:\s*['\"](?:\./)?([\w\-./]+)['\"]", config)
    return found[1].rstrip("/") if found and not found[1].startswith(("..", "/")) else default


def _angular(folder: Folder) -> str:
    projects = mapping(folder.json("angular.json"), "projects")
    for name, project in projects.items():
        options = mapping(project, "architect", "build", "options")
        out = options.get("outputPath")
        base = out if isinstance(out, str) else text_of(mapping(options, "outputPath").get("base")) or f"dist/{name}"
        builder = text_of(mapping(project, "architect", "build").get("builder"))
        return f"{base}/browser" if builder.endswith(":application") else base
    return "dist"


def _server(folder: Folder, package: Package) -> Found | None:
    build = Build(runtime="node", command=package.run("build") if "build" in package.scripts else "")
    start = text_of(package.scripts.get("start"))
    entry = _entry(folder, package, start)
    if start:
        command = package.run("start")
    elif entry:
        command = f"node {entry}"
    else:
        serve = next((name for name in ("serve", "prod", "production") if name in package.scripts), "")
        if not serve:
            return None
        command = package.run(serve)
    sources = [entry] if entry else []
    sources += [path for path in folder.sources((".js", ".mjs", ".cjs", ".ts", ".mts"), 2) if path not in sources][:40]
    if package.has(*SERVERS) or any(_LISTENS.search(folder.text(path)) for path in sources):
        shown = next((name for name in SERVERS if package.has(name)), "a server")
        return Found(WebService(command=command, build=build), (f"Node application with {shown}, started by `{command}`.",))
    return Found(WorkerService(command=command, build=build), (f"Nothing listens on a port: `{command}` runs as a worker.",))


def _entry(folder: Folder, package: Package, start: str) -> str:
    named = re.search(r"(?:node|nodemon|tsx|ts-node|bun)\s+(?:-\S+\s+)*([\w\-./]+)", start)
    for candidate in (named[1] if named else "", package.main):
        path = candidate.removeprefix("./")
        if path and (found := folder.first(path, f"{path}.js", f"{path}/index.js")):
            return found
    return "" if start else folder.first(*ENTRIES)
