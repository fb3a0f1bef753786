import { readFileSync } from 'node:fs'

const PACKAGES = ['fail2ban-perimeter', 'fail2ban-perimeter-firewall'] as const

let known: Set<string> | undefined

/**
 * True for a file that a package of the distribution has brought, or a unit whose file it has: that
 * is the package manager's, and f2b-setup does only what is of this machine.
 */
export function isPackaged(path: string): boolean {
  known ??= new Set(PACKAGES.flatMap(filesOf))
  return known.has(path) || known.has(path.replace(/^\/etc\//, '/usr/lib/'))
}

/** What to do where a file of ours is missing. */
export function howToGet(path: string): string {
  const [server, firewall] = PACKAGES
  if (!PACKAGES.some((name) => filesOf(name).length > 0)) return 'run npm run build first'
  return `install the package ${path.includes('firewall-side') ? firewall : server}`
}

/** `npm run package` lists them beside the programs. */
function filesOf(name: string): string[] {
  try {
    return readFileSync(`/usr/lib/fail2ban-perimeter/${name}.files`, 'utf8').trim().split('\n')
  } catch {
    return [] // Not installed.
  }
}
