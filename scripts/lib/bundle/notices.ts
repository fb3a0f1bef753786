// Writes whose work stands in our bundles, and under which licence: `npm run build` calls it.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { build } from 'esbuild'

const HEAD = `The programs of this package contain the following third-party software.

`

/** The folders of the packages that something of is in a bundle, sorted. */
async function bundled(): Promise<string[]> {
  const entryPoints = ['scripts/*.ts', 'firewall-side/*.ts']
  const options = { outdir: 'dist', bundle: true, write: false, metafile: true } as const
  const { metafile } = await build({ entryPoints, ...options, platform: 'node', format: 'esm' })
  const folders = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.keys(inputs).flatMap((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? []),
  )
  return [...new Set(folders)].sort()
}

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

const folders = (await bundled()).filter((folder) => existsSync(`${folder}/package.json`))
writeFileSync('dist/THIRD-PARTY-NOTICES', HEAD + folders.map(noticeOf).join('\n'))
