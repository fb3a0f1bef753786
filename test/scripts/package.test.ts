import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import manifest from '../../package.json' with { type: 'json' }
import { temporaryFolder } from '../lib/folder.ts'

// `npm run package`: test/booted/packages.test.ts installs what it makes.

function make(): string {
  const folder = temporaryFolder('packages')
  const env = { ...process.env, SOURCE_DATE_EPOCH: '1790000000' }
  execFileSync('npx', ['tsx', 'scripts/lib/bundle/package.ts', folder], { env })
  return folder
}

const folder = make()
const debs = readdirSync(folder).sort()

test('there are two packages, and they are the same bytes each time, whatever the umask', () => {
  const names = debs.map((deb) => deb.split('_')[0])
  assert.deepEqual(names, ['fail2ban-perimeter-firewall', 'fail2ban-perimeter'])
  const before = process.umask(0o077)
  const again = make()
  process.umask(before)
  for (const deb of debs) {
    assert.ok(readFileSync(`${folder}/${deb}`).equals(readFileSync(`${again}/${deb}`)), deb)
  }
})

test('lintian finds nothing that is not explained', () => {
  for (const deb of debs) {
    const args = ['--allow-root', '--fail-on', 'error,warning,info', `${folder}/${deb}`]
    const { status, stdout, stderr } = spawnSync('lintian', args, { encoding: 'utf8' })
    assert.equal(status, 0, `${deb}: ${stdout}${stderr}`)
  }
})

test('every command is there and tells the version', () => {
  const [, deb = ''] = debs
  const target = temporaryFolder('unpacked')
  execFileSync('dpkg-deb', ['-x', `${folder}/${deb}`, target])
  const commands = readdirSync(`${target}/usr/bin`)
  const others = Object.keys(manifest.bin).filter((name) => !commands.includes(name))
  assert.deepEqual(others, ['f2b-setup'], 'which update-alternatives links')
  const setup = 'usr/lib/fail2ban-perimeter/dist/setup.cjs'
  for (const path of [setup, ...commands.map((name) => `usr/bin/${name}`)]) {
    const options = { cwd: target, encoding: 'utf8' } as const
    const said = execFileSync(process.execPath, [path, '--version'], options)
    assert.equal(said, `${manifest.version}\n`, path)
  }
})

test('nothing is in both, and no file still names the place for programs without a package', () => {
  const lists = debs.map((deb) => {
    const target = `${temporaryFolder('unpacked')}`
    execFileSync('dpkg-deb', ['-x', `${folder}/${deb}`, target])
    const found = spawnSync('grep', ['-rlF', '/usr/local/lib/fail2ban-perimeter', target])
    assert.equal(String(found.stdout), '')
    const files = execFileSync('find', ['.', '!', '-type', 'd'], { cwd: target, encoding: 'utf8' })
    return files.trim().split('\n')
  })
  const [one = [], other = []] = lists
  assert.deepEqual(
    one.filter((path) => other.includes(path)),
    [],
  )
})
