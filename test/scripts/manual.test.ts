import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import manifest from '../../package.json' with { type: 'json' }
import type { Schema } from '../../scripts/lib/bundle/comments.ts'

// What people read and press TAB for: `npm run build` makes it from what the commands say themselves.

const SECTIONS = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'FILES', 'SEE ALSO']

test('every command and every settings file has a man page, clean and within 80 columns', () => {
  const pages = readdirSync('dist/man')
  const commands = Object.keys(manifest.bin).map((command) => `${command}.1`)
  const wanted = [...commands, 'fail2ban-perimeter.yaml.5', 'firewall.yaml.5']
  assert.deepEqual(pages.toSorted(), wanted.toSorted())
  for (const name of pages) {
    const text = shown(name)
    const wide = text.split('\n').filter((line) => line.length > 80)
    assert.deepEqual(wide, [], name)
    const titles = SECTIONS.filter((title) => text.includes(`\n${title}\n`))
    const command = name.endsWith('.1')
    const least = command ? SECTIONS : ['NAME', 'DESCRIPTION', 'FILES', 'SEE ALSO']
    assert.deepEqual(titles, least, name)
    // What makes whatis find it.
    assert.match(text, new RegExp(`NAME\n +${name.slice(0, -2)} +- +\\S`), name)
  }
})

test('a page says of each option and each key what the help and the comments say', () => {
  assert.match(shown('f2b-status.1'), /--unban ADDR\n +free the address or range/)
  assert.match(shown('f2b-setup.1'), /f2b-setup firewall\n(?:.*\n)+? +--key-file FILE\n/)
  assert.match(shown('firewall.yaml.5'), /max_leases\n.*default 100000\)\n +How many leases/)
  const text = shown('fail2ban-perimeter.yaml.5')
  assert.match(text, /stale_after\n.*default 15m\)\n +a device that fetches less often/)
  const { properties } = JSON.parse(readFileSync('dist/config.schema.json', 'utf8'))
  assert.match(properties.never_ban.description, /^Addresses and ranges that are never banned/)
  for (const name of Object.keys(properties)) assert.match(text, new RegExp(`\n +${name}( |\n)`))
})

test('every key of either settings file is explained, in the schema and so in its page', () => {
  const { properties } = JSON.parse(readFileSync('dist/config.schema.json', 'utf8'))
  const net2ban = properties.net2ban.properties
  assert.match(net2ban.clients.additionalProperties.properties.rounds.description, /^of PBKDF2/)
  assert.match(properties.opnsense.anyOf[1].properties.key.description, /instead of key_file$/)
  for (const [name, least] of [
    ['config', 120],
    ['firewall', 8],
  ] as const) {
    const all = keys(JSON.parse(readFileSync(`dist/${name}.schema.json`, 'utf8')))
    assert.ok(all.length >= least, `${all.length}`)
    const unexplained = all.filter(({ description }) => !description?.trim())
    assert.deepEqual(unexplained, [], name)
  }
})

/** Every key at any depth, of each shape that a section may have. */
function keys(schema: Schema, above = ''): { path: string; description: string | undefined }[] {
  const { properties = {}, items, additionalProperties, anyOf = [] } = schema
  const own = Object.entries(properties).flatMap(([name, key]) => {
    const path = `${above}.${name}`
    return [{ path, description: key.description }, ...keys(key, path)]
  })
  const more = typeof additionalProperties === 'object' ? [additionalProperties] : []
  const inner = [...(items ? [items] : []), ...more, ...anyOf]
  return [...own, ...inner.flatMap((one) => keys(one, above))]
}

test('TAB in bash offers verbs, options, their words and files', () => {
  const cases: [string, string][] = [
    ['f2b-firewall ""', 'start stop check flush ban unban list sync'],
    ['f2b-firewall s', 'start stop sync'],
    ['f2b-firewall ban --b', '--bantime'],
    ['f2b-firewall ban --protocol ""', 'tcp udp icmp all'],
    ['f2b-firewall list --config README', 'README.md'],
    ['f2b-setup ""', 'server firewall sophosxg mikrotik opnsense fortigate net2ban'],
    ['f2b-setup net2ban c', 'client'],
    ['f2b-setup server --d', '--delivery --dry-run'],
    ['f2b-setup server --delivery ""', 'queued direct'],
    ['f2b-setup firewall --backend n', 'nftables'],
    ['f2b-setup server --prefix firewall-s', 'firewall-side'],
    ['net2banctl g', 'get_client gen_random'],
    ['banip --t', '--time'],
  ]
  const script = `source dist/completion/fail2ban-perimeter.bash
compopt() { :; }
try() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  [[ $(complete -p "$1") =~ -F\\ ([^ ]+) ]] && "\${BASH_REMATCH[1]}"
  echo "\${COMPREPLY[*]}"
}
${cases.map(([words]) => `try ${words}`).join('\n')}`
  const lines = execFileSync('bash', ['--norc', '-c', script], { encoding: 'utf8' }).split('\n')
  for (const [i, [words, wanted]] of cases.entries()) assert.equal(lines[i], wanted, words)
})

test('zsh and fish take their files', () => {
  execFileSync('zsh', ['-n', 'dist/completion/_fail2ban-perimeter'])
  const ask = "source dist/completion/fail2ban-perimeter.fish; complete -C 'f2b-setup server --del'"
  const { stdout, stderr } = spawnSync('fish', ['-N', '-c', ask], { encoding: 'utf8' })
  assert.equal(stderr, '')
  assert.match(stdout, /^--delivery\tqueued: /)
})

test('each option that TAB offers is one that its command knows', () => {
  const text = readFileSync('dist/completion/fail2ban-perimeter.fish', 'utf8')
  for (const [command, program] of Object.entries(manifest.bin)) {
    const lines = text.split('\n').filter((line) => line.startsWith(`complete -c ${command} `))
    const words = lines.flatMap((line) => {
      const name = / -l (\S+)/.exec(line)?.[1]
      return name ? [/ -(x|xa|rF)( |$)/.test(line) ? `--${name}=1` : `--${name}`] : []
    })
    assert.ok(words.length > 3, command)
    const { status, stderr } = spawnSync(process.execPath, [program, ...words], {
      encoding: 'utf8',
    })
    assert.equal(status, 0, `${command} ${words.join(' ')}: ${stderr}`)
  }
})

function shown(page: string): string {
  const env = {
    ...process.env,
    LC_ALL: 'C.UTF-8',
    MANWIDTH: '80',
    MANOPT: '--no-hyphenation --no-justification',
  }
  const { stdout, stderr } = spawnSync('man', ['--warnings=all', '-l', `dist/man/${page}`], {
    encoding: 'utf8',
    env,
  })
  assert.equal(stderr, '', page)
  // Bold and underlined letters are struck twice where the output is no terminal that has them.
  return stdout.replace(/.\x08/g, '').replace(/\x1b\[[0-9;]*m/g, '')
}
