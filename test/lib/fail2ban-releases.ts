import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { run } from '../../scripts/lib/run.ts'

/** A version of Fail2Ban that people run. */
export interface Release {
  version: string
  /** Its `fail2ban-client`. */
  client: string
  /** Its `/etc/fail2ban`, as it is shipped. */
  config: string
}

/** Those of Debian 12, of Debian 13, and the newest. */
const SUITES = ['bookworm', 'trixie', 'forky']

/** Outside of the project: made once on a machine, and anew on a fresh one. */
const CACHE = '/var/cache/fail2ban-perimeter-test'

const INSTALLED = { client: '/usr/bin/fail2ban-client', config: '/etc/fail2ban' }

/** The packages of other suites than ours are unpacked beside, and installed nowhere. */
export async function fail2banReleases(): Promise<Release[]> {
  const own = await codename()
  const releases: Release[] = []
  for (const suite of SUITES)
    releases.push(suite === own ? await installed() : await unpacked(suite))
  return releases
}

export async function installed(): Promise<Release> {
  return { version: await versionOf(INSTALLED.client), ...INSTALLED }
}

async function unpacked(suite: string): Promise<Release> {
  const folder = join(CACHE, suite)
  if (!existsSync(folder)) await unpack(suite, folder)
  const client = join(folder, 'fail2ban-client')
  return { version: await versionOf(client), client, config: join(folder, 'etc/fail2ban') }
}

/** Complete or not at all, also when two do it at once. */
async function unpack(suite: string, folder: string): Promise<void> {
  mkdirSync(CACHE, { recursive: true })
  const beside = mkdtempSync(`${folder}.new-`)
  await download(suite, beside)
  const [file = ''] = readdirSync(beside).filter((name) => name.endsWith('.deb'))
  await must('dpkg-deb', ['-x', join(beside, file), beside])
  const modules = join(folder, 'usr/lib/python3/dist-packages')
  // As its package does when it is installed: each start would compile all of it.
  await must('/usr/bin/python3', ['-m', 'compileall', '-q', join(beside, 'usr/lib')])
  // What is imported leaves no trace, so that nothing belongs to whoever ran it first.
  const client = `#!/bin/sh
export PYTHONPATH=${modules} PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 ${join(folder, 'usr/bin/fail2ban-client')} "$@"
`
  writeFileSync(join(beside, 'fail2ban-client'), client, { mode: 0o755 })
  try {
    renameSync(beside, folder)
  } catch (error) {
    rmSync(beside, { recursive: true })
    if (!existsSync(folder)) throw error
  }
}

/** From the mirror that this machine uses, with lists of its own. */
async function download(suite: string, folder: string): Promise<void> {
  const format = '$(RELEASE) $(REPO_URI)'
  const known = (await must('apt-get', ['indextargets', '--format', format])).split('\n')
  const own = await codename()
  const mirror = known.map((line) => line.split(' ')).find(([release]) => release === own)?.[1]
  if (!mirror) throw new Error(`apt has no mirror of ${own}`)
  const sources = join(folder, 'sources.list')
  const key = '/usr/share/keyrings/debian-archive-keyring.gpg'
  writeFileSync(sources, `deb [signed-by=${key}] ${mirror} ${suite} main\n`)
  mkdirSync(join(folder, 'lists/partial'), { recursive: true })
  mkdirSync(join(folder, 'cache/archives/partial'), { recursive: true })
  const settings = {
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '-',
    'Dir::State::lists': join(folder, 'lists'),
    'Dir::Cache': join(folder, 'cache'),
    'Acquire::Languages': 'none',
    // What a mirror that lags behind has is as signed as ever.
    'Acquire::Check-Valid-Until': 'false',
    'APT::Sandbox::User': 'root',
  }
  const options = Object.entries(settings).map(([name, value]) => `-o${name}=${value}`)
  await must('apt-get', ['-qq', ...options, 'update'], folder)
  await must('apt-get', ['-qq', ...options, 'download', 'fail2ban'], folder)
  for (const name of ['lists', 'cache']) rmSync(join(folder, name), { recursive: true })
}

async function codename(): Promise<string> {
  return (await must('sh', ['-c', '. /etc/os-release; printf %s "$VERSION_CODENAME"'])).trim()
}

async function versionOf(client: string): Promise<string> {
  return (await must(client, ['-V'])).trim()
}

async function must(file: string, args: string[], folder = '/'): Promise<string> {
  const { code, stdout, stderr } = await run('env', ['-C', folder, file, ...args])
  if (code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${code}: ${stderr}`)
  return stdout
}
