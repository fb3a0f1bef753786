import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import manifest from '../package.json' with { type: 'json' }

/** The packages that our sources import. */
function imported(): Set<string> {
  const names = ['scripts', 'firewall-side'].flatMap((folder) => {
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    const sources = files.filter((file) => file.endsWith('.ts'))
    return sources.flatMap((file) => {
      const text = readFileSync(`${folder}/${file}`, 'utf8')
      const found = text.matchAll(/(?:from |import\()'((?:@[^/']+\/)?[a-z][^/':]*)[^':]*'/g)
      return [...found].map(([, name = '']) => name)
    })
  })
  return new Set(names.filter((name) => name in manifest.devDependencies))
}

test('the package brings the licence of everything that is in its programs', () => {
  assert.ok(manifest.files.includes('dist'))
  const text = readFileSync('dist/THIRD-PARTY-NOTICES', 'utf8')
  // What only builds is in no program; what ours build on in turn is.
  const builders = ['@valibot/to-json-schema', 'esbuild']
  const wanted = [...imported()].filter((name) => !builders.includes(name))
  assert.ok(wanted.includes('yaml') && wanted.includes('undici'), String(wanted))
  for (const name of [...wanted, 'strnum']) {
    const [, notice = ''] = text.split(new RegExp(`^${name} \\d[\\d.]* \\(.+\\)$`, 'm'))
    assert.match(notice, /copyright/i, name)
  }
  for (const name of builders) assert.doesNotMatch(text, new RegExp(`^${name} `, 'm'))
})
