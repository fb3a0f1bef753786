// Makes Debian's packages of both sides: `npm run package`. The same sources, and the same
// SOURCE_DATE_EPOCH, give the same bytes.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { gzipSync } from 'node:zlib'
import manifest from '../../../package.json' with { type: 'json' }

/** Where f2b-setup puts programs; in a package they are where Debian has them. */
const BY_SETUP = '/usr/local/lib/fail2ban-perimeter'
const LIB = '/usr/lib/fail2ban-perimeter'
const UNITS = '/usr/lib/systemd/system'

/** Where the packages are put; another folder and version are for tests of an upgrade. */
const [, , FOLDER = 'dist'] = process.argv
const VERSION = `${process.env.F2B_PACKAGE_VERSION ?? manifest.version}-1`
const { DEBFULLNAME = 'fail2ban-perimeter', DEBEMAIL = 'fail2ban-perimeter@example.org' } =
  process.env
const MAINTAINER = `${DEBFULLNAME} <${DEBEMAIL}>`

/** The moment that everything is from: of the last commit, if nobody says. */
const EPOCH = Number(
  process.env.SOURCE_DATE_EPOCH ??
    execFileSync('git', ['log', '-1', '--format=%ct'], { encoding: 'utf8' }),
)

/** The folder of a package that is being made. */
class Tree {
  readonly root = mkdtempSync(join(tmpdir(), 'f2b-package-'))
  readonly conffiles: string[] = []

  /** @param text all that names the place of our programs is told the one in the package */
  file(path: string, text: string | Buffer, mode = 0o644): void {
    const target = join(this.root, path)
    mkdirSync(dirname(target), { recursive: true })
    const placed =
      typeof text === 'string'
        ? text.replaceAll(BY_SETUP, LIB).replace(/^#!\/usr\/bin\/env node$/m, '#!/usr/bin/node')
        : text
    writeFileSync(target, placed)
    chmodSync(target, mode)
    if (path.startsWith('/etc/')) this.conffiles.push(path)
  }

  copy(from: string, path: string, mode?: number): void {
    this.file(path, readFileSync(from, 'utf8'), mode)
  }

  packed(path: string, text: string): void {
    this.file(path, gzipSync(text, { level: 9 }))
  }

  link(path: string, to: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    symlinkSync(relative(dirname(path), to), join(this.root, path))
  }

  files(folder = ''): string[] {
    const entries = readdirSync(join(this.root, folder), { withFileTypes: true })
    return entries.flatMap((entry) => {
      const path = `${folder}/${entry.name}`
      return entry.isDirectory() ? this.files(path) : [path]
    })
  }
}

function build(name: string, fill: (tree: Tree) => void): void {
  const tree = new Tree()
  fill(tree)
  documents(tree, name)
  // f2b-setup leaves these alone.
  tree.file(`${LIB}/${name}.files`, `${tree.files().sort().join('\n')}\n`)
  const files = tree.files()
  const control = read(`scripts/debian/${name}.control`).trimEnd().split('\n')
  const sizes = files.map((path) => Math.ceil(statOf(tree.root, path).size / 1024))
  const more = [
    `Version: ${VERSION}`,
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${sizes.reduce((sum, size) => sum + size, 0)}`,
  ]
  tree.file('/DEBIAN/control', [control[0], ...more, ...control.slice(1), ''].join('\n'))
  const { conffiles } = tree
  if (conffiles.length > 0) tree.file('/DEBIAN/conffiles', `${conffiles.sort().join('\n')}\n`)
  for (const script of ['postinst', 'prerm', 'postrm']) {
    tree.copy(`scripts/debian/${name}.${script}`, `/DEBIAN/${script}`, 0o755)
  }
  tree.file('/DEBIAN/md5sums', sums(tree, files))
  execFileSync('chmod', ['-R', 'u+rwX,go+rX,go-w', tree.root])
  const target = `${FOLDER}/${name}_${VERSION}_all.deb`
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', tree.root, target], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(EPOCH) },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  rmSync(tree.root, { recursive: true })
  process.stdout.write(`${target}\n`)
}

/** For `dpkg --verify`; what belongs to the administrator may differ, and a link is no file. */
function sums({ root, conffiles }: Tree, files: string[]): string {
  const own = files.filter((path) => !conffiles.includes(path) && statOf(root, path).isFile())
  const names = own.map((path) => path.slice(1)).sort()
  return execFileSync('md5sum', ['--', ...names], { cwd: root, encoding: 'utf8' })
}

function statOf(root: string, path: string): Stats {
  return lstatSync(join(root, path))
}

function read(path: string): string {
  return readFileSync(path, 'utf8')
}

/** What Debian wants of every package in /usr/share/doc. */
function documents(tree: Tree, name: string): void {
  const doc = `/usr/share/doc/${name}`
  const date = new Date(EPOCH * 1000).toUTCString().replace('GMT', '+0000')
  const entry = `${name} (${VERSION}) unstable; urgency=medium\n\n  * Release ${manifest.version}.\n\n -- ${MAINTAINER}  ${date}\n`
  tree.packed(`${doc}/changelog.Debian.gz`, entry)
  tree.packed(`${doc}/changelog.gz`, read('CHANGELOG.md'))
  tree.packed(`${doc}/README.md.gz`, read('README.md'))
  tree.file(`${doc}/copyright`, copyright())
  const overrides = `scripts/debian/${name}.lintian-overrides`
  tree.copy(overrides, `/usr/share/lintian/overrides/${name}`)
}

/** Debian has this one on every machine, and its policy wants it named instead of copied. */
const APACHE =
  /^ *Apache License\n +Version 2\.0, January 2004[\s\S]*?limitations under the License\.$/m

/** Debian's machine-readable form; what others wrote follows as the build found it. */
function copyright(): string {
  const body = (text: string): string =>
    text
      .trim()
      .split('\n')
      .map((line) => ` ${line.trim() === '' ? '.' : line.trimEnd()}`)
      .join('\n')
  const others = read('dist/THIRD-PARTY-NOTICES').replace(
    APACHE,
    'Apache License, Version 2.0: /usr/share/common-licenses/Apache-2.0',
  )
  const [title = '', holder = '', ...terms] = read('LICENSE').trim().split(/\n\n/)
  const who = holder.replace(/^Copyright (\(c\) )?/i, '')
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ${manifest.name}
Comment: The programs contain software of others, with these terms:
 .
${body(others)}

Files: *
Copyright: ${who}
License: Expat

License: Expat
 ${title.startsWith('MIT') ? 'The MIT licence:' : title}
 .
${body(terms.join('\n\n'))}
`
}

function page(tree: Tree, name: string, folder = `/usr/share/man/man${name.slice(-1)}`): void {
  tree.packed(`${folder}/${name}.gz`, read(`dist/man/${name}`))
}

function completion(tree: Tree, commands: string[]): void {
  const name = 'fail2ban-perimeter'
  const [first = '', ...others] = commands
  const bash = '/usr/share/bash-completion/completions'
  tree.copy(`dist/completion/${name}.bash`, `${bash}/${first}`)
  for (const command of others) tree.link(`${bash}/${command}`, `${bash}/${first}`)
  tree.copy(`dist/completion/_${name}`, `/usr/share/zsh/vendor-completions/_${name}`)
  const fish = read(`dist/completion/${name}.fish`).split('\n')
  for (const command of commands) {
    // fish looks for a file of the command's name, and at no other.
    const lines = fish.filter((line) => line.startsWith(`complete -c ${command} `))
    tree.file(`/usr/share/fish/vendor_completions.d/${command}.fish`, `${lines.join('\n')}\n`)
  }
}

const commands = Object.keys(manifest.bin)

build('fail2ban-perimeter', (tree) => {
  for (const [command, launcher] of Object.entries(manifest.bin)) {
    // The launcher is for a Node.js that is too old, which the package does not let in.
    const program = `dist/${basename(launcher)}`
    tree.copy(program, `${LIB}/${program}`, 0o755)
    // Which of the two packages brings f2b-setup is for update-alternatives.
    if (command === 'f2b-setup') page(tree, `${command}.1`, `${LIB}/dist`)
    else {
      tree.link(`/usr/bin/${command}`, `${LIB}/${program}`)
      page(tree, `${command}.1`)
    }
  }
  // Where units look for them.
  for (const name of ['deliver', 'sync', 'net2ban', 'fortigate-feed']) {
    tree.link(`${LIB}/${name}.cjs`, `${LIB}/dist/${name}.cjs`)
  }
  page(tree, 'fail2ban-perimeter.yaml.5')
  completion(tree, commands)
  tree.copy('dist/config.schema.json', `${LIB}/dist/config.schema.json`)
  tree.copy('config.yaml', `${LIB}/config.yaml`)
  tree.link('/usr/share/doc/fail2ban-perimeter/examples/config.yaml', `${LIB}/config.yaml`)
  for (const name of readdirSync('scripts/units')) {
    tree.copy(`scripts/units/${name}`, `${LIB}/scripts/units/${name}`)
  }
  for (const folder of ['action.d', 'filter.d']) {
    for (const name of readdirSync(folder)) {
      tree.copy(`${folder}/${name}`, `/etc/fail2ban/${folder}/${name}`)
      tree.copy(`${folder}/${name}`, `${LIB}/${folder}/${name}`)
    }
  }
})

build('fail2ban-perimeter-firewall', (tree) => {
  tree.copy('dist/setup.cjs', `${LIB}/firewall/setup.cjs`, 0o755)
  page(tree, 'f2b-setup.1', `${LIB}/firewall`)
  page(tree, 'firewall.yaml.5')
  for (const file of readdirSync('dist/firewall-side').filter((name) => name.endsWith('.cjs'))) {
    tree.copy(`dist/firewall-side/${file}`, `${LIB}/dist/firewall-side/${file}`, 0o755)
    tree.link(`${LIB}/${basename(file, '.cjs')}`, `${LIB}/dist/firewall-side/${file}`)
  }
  const brought = readdirSync('firewall-side').filter((name) => !/^lib$|\.ts$/.test(name))
  for (const name of brought) {
    if (/\.(service|timer)$/.test(name)) tree.copy(`firewall-side/${name}`, `${UNITS}/${name}`)
    const mode = name === 'gate.sh' ? 0o755 : 0o644
    tree.copy(`firewall-side/${name}`, `${LIB}/firewall-side/${name}`, mode)
  }
  tree.link(`${LIB}/gate`, `${LIB}/firewall-side/gate.sh`)
  const examples = '/usr/share/doc/fail2ban-perimeter-firewall/examples'
  tree.link(`${examples}/firewall.yaml`, `${LIB}/firewall-side/firewall.yaml`)
})
