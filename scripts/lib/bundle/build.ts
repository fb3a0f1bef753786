// Makes dist/: one file per command, which needs nothing beside it and reads as its sources do, with
// their comments. `npm run build` calls it.
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { build, type Plugin, transform } from 'esbuild'

// esbuild keeps no comments but legal notes, so ours travel as such, and blank lines with them.

const disguise = (source: string): string =>
  source
    .replace(/^( *)\/\/ /gm, '$1//!: ')
    .replace(/^( *)\/\*\*/gm, '$1/*!*')
    .replace(/(?<=[^\n]\n)\n(?=[^\n])/g, '//!~\n')

const reveal = (text: string): string =>
  text
    .replace(/^ *\/\*!\*(?:(?!\*\/)[\s\S])*\*\/\n(?= *\/\/!~)/gm, '') // of a function that is not used
    .replace(/(?:^ *\/\/!~\n)+/gm, '\n')
    .replace(/^( *)\/\/!: /gm, '$1// ')
    .replace(/^( *)\/\*!\*/gm, '$1/**')

const sources: Plugin = {
  name: 'sources with their comments',
  setup({ onLoad }) {
    onLoad({ filter: /\/(scripts|firewall-side)\/.*\.ts$/ }, ({ path }) => {
      return { contents: disguise(readFileSync(path, 'utf8')), loader: 'ts' }
    })
    onLoad({ filter: /\.py$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8').replace(/[\\`]|\$\{/g, '\\$&')
      return { contents: `export default \`${text}\``, loader: 'js' }
    })
  },
}

// What a program needs only now and then is a module of its own to esbuild. Here it is a function
// below the program, so that its code runs, and is compiled, when it is asked for.

const nameOf = (part: string): string => `part_${part.replace(/\W/g, '_')}`

const asPart = (module: string): string =>
  module
    .replace(/^import (?:\* as )?(\w+) from (".*");$/gm, 'const $1 = require($2);')
    .replace(/^import (\w+), (\{[^}]*\}) from (".*");$/gm, 'const $1 = require($3), $2 = $1;')
    .replace(/^import (\{[^}]*\}) from (".*");$/gm, (_, names: string, from: string) => {
      return `const ${names.replace(/ as /g, ': ')} = require(${from});`
    })
    .replace(/^import (".*");$/gm, 'require($1);')
    .replace(/^export (\{[^}]*\});$/m, (_, names: string) => {
      return `return ${names.replace(/(\w+) as (\w+)/g, '$2: $1')};`
    })
    .replace(
      /\b(?:require|import)\("\.\/(.*)\.js"\)/g,
      (_, name: string) => `$part(${nameOf(name)})`,
    )

const PART = `
// What follows is not needed at each start.

/** What one of the functions below gives, which run when they are first asked. */
function $part(make) {
  make.made ??= make();
  return make.made;
}
`

/** @returns the files that something of is in the program */
async function bundle(entry: string): Promise<string[]> {
  const { outputFiles, metafile } = await build({
    entryPoints: [entry],
    outdir: 'dist',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node18',
    conditions: ['bundle', 'module'],
    alias: {
      'zx/core': './node_modules/zx/build/core.cjs', // its ES module asks where it lies
      yaml: './node_modules/yaml/browser/index.js', // ES modules, of which esbuild takes what is used
    },
    legalComments: 'inline',
    plugins: [sources],
    metafile: true,
    write: false,
    logLevel: 'warning',
  })
  const name = basename(entry, '.ts')
  const modules = outputFiles.map(({ path, text }) => ({ name: basename(path, '.js'), text }))
  const command = modules.find((module) => module.name === name)?.text ?? ''
  const parts = modules.filter((module) => module.name !== name)
  const text = [
    '#!/usr/bin/env node',
    "'use strict';",
    oldNode,
    asPart(command.replace(/^#!.*\n/, '')),
    ...(parts.length > 0 ? [PART] : []),
    ...parts.map((module) => `function ${nameOf(module.name)}() {\n${asPart(module.text)}}\n`),
  ].join('\n')
  const file = join('dist', entry.replace(/^scripts\//, '').replace(/\.ts$/, '.cjs'))
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, reveal(text))
  chmodSync(file, 0o755)
  return Object.values(metafile.outputs).flatMap(({ inputs }) => Object.keys(inputs))
}

/** What a package wants to be said where its work is passed on. */
function noticeOf(folder: string): string {
  const { name, version, license, author } = JSON.parse(
    readFileSync(`${folder}/package.json`, 'utf8'),
  )
  if (!license) throw new Error(`${folder} names no licence`)
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file))
  const texts = files.map((file) => readFileSync(`${folder}/${file}`, 'utf8').trim())
  const who = `Copyright: ${author?.name ?? author ?? `the authors of ${name}`}`
  const notice = texts.length > 0 ? texts.join('\n\n') : who
  return `${'='.repeat(80)}\n${name} ${version} (${license})\n\n${notice}\n`
}

const { code: oldNode } = await transform(
  disguise(readFileSync('scripts/lib/bundle/old-node.ts', 'utf8')),
  { loader: 'ts', legalComments: 'inline' },
)
// npm links these: a Node.js that is too old for the syntax of a command gets to see only its head.
const { bin } = JSON.parse(readFileSync('package.json', 'utf8'))
mkdirSync('dist/bin', { recursive: true })
for (const file of Object.values<string>(bin)) {
  const program = `process.argv[1] = require.resolve('../${basename(file)}');`
  const lines = ['#!/usr/bin/env node', "'use strict';", reveal(oldNode), program]
  writeFileSync(file, `${lines.join('\n')}\nrequire(process.argv[1]);\n`, { mode: 0o755 })
}

const entries = ['scripts', 'firewall-side'].flatMap((folder) =>
  readdirSync(folder).flatMap((file) => (file.endsWith('.ts') ? [`${folder}/${file}`] : [])),
)
const inputs = (await Promise.all(entries.map(bundle))).flat()
const packages = inputs.flatMap((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? [])
const folders = [...new Set(packages)].filter((folder) => existsSync(`${folder}/package.json`))
writeFileSync(
  'dist/THIRD-PARTY-NOTICES',
  `The programs of this package contain the following third-party software.\n\n${folders.sort().map(noticeOf).join('\n')}`,
)
